"""The commands that fit models and commit them."""
