"""Tables of entries: the numbers of their ids, and the external sort that makes rows of them."""
