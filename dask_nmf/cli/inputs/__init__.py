"""The commands about V: convert it from other kinds of files."""
