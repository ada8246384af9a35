"""The graphs of reads of V that several models share. Nothing here computes."""
