"""The passes of a fit: several models share each read of V, and the best of several starts is kept."""
