"""Figures of W and H, with the names that they have, and of what they leave unexplained."""
