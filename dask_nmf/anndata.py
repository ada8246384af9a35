"""`nmf` for AnnData, with the conventions of scanpy, and the accessor ``adata.nmf``."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from anndata import AnnData, register_anndata_namespace

from dask_nmf import api
from dask_nmf.fitting.result import Result
from dask_nmf.inference.factors import as_dask_array
from dask_nmf.options.option import plain
from dask_nmf.options.settings import Settings
from dask_nmf.planning.worker_memory import IN_FLIGHT
from dask_nmf.sources.formats.objects.annotated import is_annotated, matrix_within
from dask_nmf.sources.labelled.registry import FormedMatrix
from dask_nmf.sources.labelled.tables import PandasTable
from dask_nmf.sources.registry import in_memory_form, open_matrix
from dask_nmf.types import Array

HIGHLY_VARIABLE = "highly_variable"  # the column of var by which scanpy chooses genes
AUTO = "auto"


def nmf(
    adata: AnnData,
    n_components: int,
    *,
    layer: str | None = None,
    mask_var: Array | str | None = AUTO,
    key_added: str = "nmf",
    copy: bool = False,
    **options: Any,
) -> AnnData | None:
    """Factorise the matrix of an AnnData, and store the factors in it.

    ``X`` of an AnnData in a file (``backed``), and of Dask, is read panel by panel. With the default key are
    written:

    * ``adata.obsm["X_nmf"]``: W, (n_obs, n_components);
    * ``adata.varm["nmf"]``: H transposed, (n_vars, n_components), 0 for variables that were left out;
    * ``adata.uns["nmf"]``: ``params``, the options that the fit had, and its ``relative_error``,
      ``reconstruction_err``, ``error_history``, ``n_iter``, ``outcome`` and ``message``.

    Parameters
    ----------
    adata : the AnnData, in memory, in a file, or of Dask.
    n_components : number of components, k.
    layer : the layer to factorise in place of ``X``. ``adata.raw`` has variables of its own, to which the
        ``varm`` of ``adata`` has no place for H: give ``adata.raw.to_adata()``.
    mask_var : the variables to use: a column of ``var``, or an array of booleans, (n_vars,); None uses all.
        By default they are those of ``var["highly_variable"]`` if there is such a column, and else all.
    key_added : the key in ``varm`` and ``uns``; that in ``obsm`` begins with ``X_``.
    copy : whether to return a copy with the factors, and to leave ``adata`` as it is.
    **options : as in `dask_nmf.nmf`. What is no number, text or boolean is not recorded in ``params``, nor is
        ``store``.

    Returns
    -------
    None, or the copy.

    Raises
    ------
    TypeError
        If ``adata`` is not an AnnData; if an option is unknown.
    ValueError
        If there is no such layer or column, or no variable is chosen; for a ``copy`` of an AnnData in a file;
        and as `dask_nmf.nmf` does.

    Examples
    --------
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> from dask_nmf.anndata import nmf
    >>> adata = AnnData(np.random.default_rng(0).random((30, 8)))
    >>> nmf(adata, 2)
    >>> adata.obsm["X_nmf"].shape, adata.varm["nmf"].shape
    ((30, 2), (8, 2))
    """
    _check(adata, copy)
    mask, name = _mask_of(adata, mask_var)
    matrix = matrix_within(adata, layer, "adata")
    chosen = matrix if mask is None else _columns_of(matrix, np.flatnonzero(mask))
    form = PandasTable(adata.obs_names, adata.var_names if mask is None else adata.var_names[mask])
    result = api.nmf(FormedMatrix(chosen, form), n_components, **options)
    target = adata.copy() if copy else adata
    W, H = (np.asarray(factor) for factor in result)
    loadings = np.zeros((adata.n_vars, n_components), H.dtype)
    loadings[slice(None) if mask is None else mask] = H.T
    target.obsm[f"X_{key_added}"] = W
    target.varm[key_added] = loadings
    origin = {"layer": layer, "mask_var": name}
    target.uns[key_added] = {"params": _recorded(n_components, options, origin), **_figures(result)}
    return target if copy else None


@register_anndata_namespace("nmf")
class Accessor:
    """`nmf` as a method of an AnnData, and the components as a table; ``import dask_nmf.anndata`` adds it."""

    def __init__(self, adata: AnnData) -> None:
        self._adata = adata

    def fit(self, n_components: int, **options: Any) -> AnnData | None:
        """Factorise the AnnData; the options are those of `dask_nmf.anndata.nmf`."""
        return nmf(self._adata, n_components, **options)


def _check(adata: Any, copy: bool) -> None:
    if not is_annotated(adata):
        raise TypeError(f"adata is {type(adata).__name__}; give an AnnData, or call dask_nmf.nmf")
    if copy and adata.isbacked:
        raise ValueError(
            f"copy is True and adata is in the file {adata.filename}, all of which would be copied; leave "
            "copy out, or give adata.to_memory()"
        )


def _mask_of(adata: AnnData, mask_var: Array | str | None) -> tuple[Array | None, str | None]:
    """Return which variables are used, (n_vars,), None for all, and how the parameters call them."""
    if isinstance(mask_var, str) and mask_var == AUTO:
        mask_var = HIGHLY_VARIABLE if HIGHLY_VARIABLE in adata.var else None
    if mask_var is None:
        return None, None
    name = mask_var if isinstance(mask_var, str) else "an array"
    if isinstance(mask_var, str) and mask_var not in adata.var:
        raise ValueError(
            f"mask_var is {mask_var!r} and var has no such column; give one of {list(adata.var)}"
        )
    mask = np.asarray(adata.var[mask_var] if isinstance(mask_var, str) else mask_var)
    if mask.shape != (adata.n_vars,) or mask.dtype != bool:
        raise ValueError(
            f"mask_var is {name}, {mask.dtype} of shape {mask.shape}; it must be boolean, of shape "
            f"({adata.n_vars},)"
        )
    if not mask.any():
        raise ValueError(f"mask_var is {name} and chooses none of {adata.n_vars} variables; choose some")
    return mask, name


def _columns_of(source: Any, columns: Array) -> Any:
    """Return some columns of a matrix, as an array in memory if it is there, else of Dask."""
    array = in_memory_form(source, "adata")
    if array is not None:
        return array[:, columns]
    matrix = open_matrix(source, name="adata")
    whole = matrix.reader.dask_array
    if whole is None:
        layout = matrix.layout
        unit = layout.chunk_rows
        heights = unit * max(1, IN_FLIGHT * layout.rows // (unit * matrix.bytes))
        whole = as_dask_array(matrix.reader, (heights, layout.columns))
    by_columns = matrix.orientation.by_columns
    return matrix.orientation.turn_array(whole[columns] if by_columns else whole[:, columns])


def _recorded(n_components: int, options: dict[str, Any], origin: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a fit as values that every writer of AnnData stores: no None, no arrays."""
    settings = {field.name: options.get(field.name, field.default) for field in fields(Settings)}
    known = {**settings, **origin, "n_components": n_components, "dtype": options.get("dtype")}
    values = {name: plain(value) for name, value in known.items()}
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}


def _figures(result: Result) -> dict[str, Any]:
    return {
        "relative_error": result.relative_error,
        "reconstruction_err": result.reconstruction_err,
        "error_history": np.asarray(result.error_history),
        "n_iter": result.n_iter,
        "outcome": str(result.outcome.value),
        "message": result.message,
    }
