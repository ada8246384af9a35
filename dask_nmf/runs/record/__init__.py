"""The record of a run: its contents, its validation, and the layouts of the arrays that it names."""
