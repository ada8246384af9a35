"""V cut for a fit: which engine makes its passes, and how the fit begins and ends on it."""
