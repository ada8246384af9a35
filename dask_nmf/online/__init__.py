"""Fits of rows that come in batches: the state of a stream, and its refits to a sample."""
