"""Fits of the models of a selection: their starts, their passes, and how many are in memory at once."""
