"""V, opened and validated, as row panels of one kind whatever holds it."""
