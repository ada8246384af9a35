"""Summaries of a block from one read: measures, a sample of rows, digests."""
