"""Matrices as sources of rows: MatrixMarket, AnnData, 10x Genomics, HDF5, and whatever a fit reads."""
