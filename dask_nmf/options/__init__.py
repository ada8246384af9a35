"""The options of a fit, each described once, and the registry of solvers that they choose from."""
