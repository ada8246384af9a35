"""Parts of a block some of whose entries are held out, by groups of rows and of columns."""
