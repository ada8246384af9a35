"""AnnData with names of cells and genes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse
from support.matrices import dask_csr, sparse

CELLS, GENES = 40, 12
KINDS: dict[str, Callable[[Any], Any]] = {
    "csr": scipy.sparse.csr_matrix,
    "csc": scipy.sparse.csc_matrix,
    "dense": np.asarray,
    "dask": lambda v: da.from_array(v, chunks=(15, 5)),
    "dask csr": lambda v: dask_csr(v, scipy.sparse.csr_matrix, (15, GENES)),
}


def cells(kind: str = "csr") -> anndata.AnnData:
    """Return an AnnData whose every second gene is highly variable, with a layer of twice its entries."""
    v = sparse(CELLS, GENES, 0.6) + np.eye(CELLS, GENES)
    adata = anndata.AnnData(
        KINDS[kind](v),
        pd.DataFrame(index=pd.Index([f"cell {number}" for number in range(CELLS)], dtype=object)),
        pd.DataFrame(
            {"highly_variable": np.arange(GENES) % 2 == 0},
            pd.Index([f"gene {number}" for number in range(GENES)], dtype=object),
        ),
    )
    adata.layers["counts"] = scipy.sparse.csr_matrix(2 * v)
    return adata


def in_a_file(adata: anndata.AnnData, path: Path) -> anndata.AnnData:
    """Return an AnnData that is backed by a file."""
    adata.write_h5ad(path)
    return anndata.read_h5ad(path, backed="r")
