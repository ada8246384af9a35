"""The kinds of inputs, one file and one `Opener` each."""
