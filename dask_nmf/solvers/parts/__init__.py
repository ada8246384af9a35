"""The parts of a solver: the state between passes, the penalties, the squared error."""
