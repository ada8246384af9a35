"""The kinds of files that are converted, one module each, as sources of batches of rows."""
