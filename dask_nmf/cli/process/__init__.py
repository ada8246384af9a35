"""The process of the command: its signals and its standard streams."""
