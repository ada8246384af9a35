"""What tasks hold in their process: cached blocks of V, slots for computing, one BLAS thread, factors."""
