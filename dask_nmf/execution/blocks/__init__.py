"""The graphs of passes over V cut both ways, into blocks."""
