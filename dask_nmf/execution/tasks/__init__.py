"""Resources of tasks in their process: cached blocks of V, compute slots, BLAS threads, stored factors."""
