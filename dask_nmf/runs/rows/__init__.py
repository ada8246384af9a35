"""Changes of the rows of a finished run: which runs may change, and the commit of a changed result."""
