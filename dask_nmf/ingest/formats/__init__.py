"""The kinds of files that are converted, a folder for each, as sources of batches of rows."""
