"""The columns, or rows, of V that matter most in each component of a result, and lists of them."""
