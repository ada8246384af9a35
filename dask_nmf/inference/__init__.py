"""What a fitted model says: W of new rows, values and top-k columns of W H."""
