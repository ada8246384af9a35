"""V, opened and validated: a matrix with a reader of one protocol, whatever kind of input holds it."""
