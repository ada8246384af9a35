"""Figures of W and H, with the names that they have."""
