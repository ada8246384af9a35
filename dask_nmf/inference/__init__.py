"""Results from a fitted model: W of new rows, and values and top-k columns of W H."""
