"""Starts from a sample of rows of V, which is factorised in memory."""
