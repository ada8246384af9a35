"""The commands that describe what was committed."""
