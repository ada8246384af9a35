"""The process of the command: its signals, its standard streams and its exit codes."""
