"""The factors that a fit begins with."""
