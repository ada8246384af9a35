"""Kinds of blocks that are not plain arrays: masked, weighted, scaled."""
