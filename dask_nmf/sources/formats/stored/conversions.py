"""What a conversion leaves with X: the digest of the recipe by which its values were made."""

from __future__ import annotations

RECIPE = "dask_nmf_recipe"  # the attribute of X with the digest
