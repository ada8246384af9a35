"""The command that compiles all functions ahead of the first fit."""
