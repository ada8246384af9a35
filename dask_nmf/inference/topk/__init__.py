"""The top-k columns of each row of W H: the search in one block, and in one pass over V."""
