"""Arithmetic of the steps on blocks of rows: values, statistics of columns, and their rankings."""
