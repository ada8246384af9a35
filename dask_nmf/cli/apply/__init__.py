"""The commands that apply a model to rows and cells."""
