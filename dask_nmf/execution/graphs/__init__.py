"""The graphs of a pass over V; nothing here computes, each function returns delayed values."""
