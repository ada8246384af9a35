"""The choice of a rank: many models fitted in shared reads of V, and compared."""
