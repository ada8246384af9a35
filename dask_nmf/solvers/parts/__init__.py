"""The parts of solvers: the state between passes, the penalties, the losses."""
