"""Factors of a run as files of other kinds, with the names of rows and columns, written in pieces."""
