"""Engines: V cut into tasks, the graphs of a pass, and who computes them."""
