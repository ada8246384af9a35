"""The cost of a fit or of a selection, before it begins: how V is cut, memory, reads, and seconds."""
