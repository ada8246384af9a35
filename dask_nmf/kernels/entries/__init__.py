"""Entries of a sparse V that come in any order: their ids are numbered, and they are sorted by row."""
