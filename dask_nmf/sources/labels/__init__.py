"""Names of the rows and columns of V: what holds them, where they lie beside V, and checks against V."""
