"""Fits of rows that come in batches."""
