"""What solvers are composed of: their state, penalties, the squared error."""
