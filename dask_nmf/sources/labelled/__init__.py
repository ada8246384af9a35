"""Objects with names of rows and columns: the matrix in them, and factors in their form."""
