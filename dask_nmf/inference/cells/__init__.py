"""CSV files of cells: rows and columns are read by number or by name, and the values of cells are written."""
