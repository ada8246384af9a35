"""Labels of a form as the names that a run keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_nmf.labelled.form import Form
from dask_nmf.sources.decoding.conversion import is_a
from dask_nmf.sources.labels.names import NO_LABELS, Labels, Names, in_memory


def labels_of(form: Form | None) -> Labels:
    """Return the names of the rows and columns of a labelled V, in the memory of this process.

    The index of a Dask DataFrame is computed, unless it is of integers without a name: each partition of a
    file that has no index counts from 0. Levels of an index are joined by commas.
    """
    if form is None:
        return NO_LABELS
    index = form.index
    if index is not None and hasattr(index, "compute"):
        index = None if index.dtype.kind in "iu" and index.name is None else index.compute()
    return Labels(_names(index, "the index of V"), _names(form.column_names, "the columns of V"))


def _names(index: Any, place: str) -> Names | None:
    if index is None:
        return None
    if is_a(index, "pandas", "MultiIndex"):
        index = [", ".join(map(str, levels)) for levels in index]
    return in_memory(np.asarray(index), place)
