"""The record of a run: what it holds, how it is validated, and how the arrays that it names are stored."""
