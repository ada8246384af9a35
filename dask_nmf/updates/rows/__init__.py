"""Rows of V as updates need them: known by their sums, chosen by numbers or names, and their names."""
