"""AnnData: `nmf` and `NMF` take it, and `dask_nmf.anndata.nmf` stores the factors as scanpy would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import dask.array as da
import h5py
import numpy as np
import pytest
from support.cells import CELLS, GENES, KINDS, cells, in_a_file

from dask_nmf import NMF, Run, nmf, select_rank
from dask_nmf.anndata import nmf as nmf_of_cells

ASKED: dict[str, Any] = {"max_iter": 4, "tol": 0}


@pytest.mark.parametrize("kind", ["csr", "dask csr", "csc in a file", "dense in a file"])
def test_factors_come_back_with_the_names_of_cells_and_genes(kind: str, tmp_path: Path) -> None:
    adata = cells(kind.split(" in ")[0])
    if "file" in kind:
        adata = in_a_file(adata, tmp_path / "a.h5ad")
    W, H = nmf(adata, 3, **ASKED)
    assert list(W.index) == list(adata.obs_names)
    assert list(H.columns) == list(adata.var_names)
    assert list(W.columns) == list(H.index) == ["nmf0", "nmf1", "nmf2"]
    np.testing.assert_allclose(W @ H, np.asarray(nmf(adata.X, 3, **ASKED).W) @ H, rtol=1e-7)
    model = NMF(3, random_state=0, **ASKED).fit(adata)
    assert list(model.feature_names_in_) == list(adata.var_names)
    assert isinstance(model.transform(adata), np.ndarray if kind == "csr" else da.Array)
    frame = model.set_output(transform="pandas").transform(adata)
    assert list(frame.index) == list(adata.obs_names)
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(cells()[:, ::-1])


@pytest.mark.parametrize(
    ("kind", "mask"),
    [*((kind, "auto") for kind in KINDS), ("csr", None), ("dense", np.arange(GENES) < 5)],
)
def test_factors_are_stored_and_written(kind: str, mask: Any, tmp_path: Path) -> None:
    adata = cells(kind)
    assert nmf_of_cells(adata, 3, mask_var=mask, **ASKED) is None
    used = (
        np.arange(GENES) % 2 == 0 if isinstance(mask, str) else np.full(GENES, True) if mask is None else mask
    )
    chosen = adata.X[:, np.flatnonzero(used)]
    W, H = nmf(chosen, 3, **ASKED)
    np.testing.assert_allclose(adata.obsm["X_nmf"], W, rtol=1e-7)
    np.testing.assert_allclose(adata.varm["nmf"][used], np.asarray(H).T, rtol=1e-7)
    assert not adata.varm["nmf"][~used].any()
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.varm["nmf"], adata.varm["nmf"])
    assert again.uns["nmf"]["params"]["n_components"] == 3
    assert again.uns["nmf"]["params"]["max_iter"] == 4
    assert again.uns["nmf"]["relative_error"] == adata.uns["nmf"]["relative_error"]
    assert len(again.uns["nmf"]["error_history"]) == again.uns["nmf"]["n_iter"]


@pytest.mark.usefixtures("several_panels")
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_a_file_is_read_by_panels(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cells(kind)
    adata = in_a_file(whole, tmp_path / "a.h5ad")
    entries = (CELLS * GENES) if kind == "dense" else whole.X.nnz
    sizes: list[int] = []
    real = h5py.Dataset.__getitem__

    def counted(self: h5py.Dataset, *given: Any, **named: Any) -> Any:
        read = real(self, *given, **named)
        sizes.append(np.size(read))
        return read

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    monkeypatch.setattr("dask_nmf.anndata.IN_FLIGHT", 100)
    for mask in ("auto", None):
        nmf_of_cells(adata, 2, mask_var=mask, **ASKED)
        nmf_of_cells(whole, 2, mask_var=mask, **ASKED)
        # panels of CSC are of genes, from which the updates lead to other factors of about the same error
        errors = [one.uns["nmf"]["relative_error"] for one in (adata, whole)]
        np.testing.assert_allclose(*errors, rtol=0.05)
    assert 0 < max(sizes) <= entries / 2
    with pytest.raises(ValueError, match=r"is in the file .*; leave copy out, or give adata.to_memory\(\)"):
        nmf_of_cells(adata, 2, copy=True)
    with pytest.raises(TypeError, match=r"a view of .*; give V.to_memory\(\)"):
        nmf(adata[:10], 2)
    adata.file.close()


def test_a_copy_another_key_a_layer_and_the_accessor() -> None:
    adata = cells()
    copied = nmf_of_cells(adata, 2, layer="counts", key_added="programs", copy=True, mask_var=None, **ASKED)
    assert not adata.obsm
    assert copied is not None
    np.testing.assert_allclose(copied.obsm["X_programs"], nmf(adata.layers["counts"], 2, **ASKED).W)
    assert copied.uns["programs"]["params"]["layer"] == "counts"
    adata.nmf.fit(2, layer="counts", mask_var=None, **ASKED)
    np.testing.assert_array_equal(adata.obsm["X_nmf"], copied.obsm["X_programs"])


def test_a_selection_of_the_rank_takes_an_anndata() -> None:
    adata = cells("dense")
    result = select_rank(adata, "1:2", n_init=1, holdout=0.2, max_iter=2).result
    assert result is not None
    assert list(result.H.columns) == list(adata.var_names)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"layer": "raw"}, ValueError, "adata has no layer 'raw'; its layers: counts"),
        ({"mask_var": "chosen"}, ValueError, r"mask_var is 'chosen' .*give one of .*highly_variable"),
        ({"mask_var": np.ones(3, bool)}, ValueError, r"bool of shape \(3,\); it must .* of shape \(12,\)"),
        ({"mask_var": np.zeros(GENES, bool)}, ValueError, "chooses none of 12 variables"),
        ({"max_iters": 3}, TypeError, "max_iter"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(options: dict[str, Any], error: type[Exception], words: str) -> None:
    adata = cells()
    with pytest.raises(error, match=words):
        nmf_of_cells(adata, 2, **options)
    assert not adata.obsm


def test_what_is_no_anndata_and_one_without_x() -> None:
    with pytest.raises(TypeError, match="adata is ndarray; give an AnnData"):
        nmf_of_cells(np.eye(3), 1)
    with pytest.raises(ValueError, match=r"V is an AnnData without X; give one of its layers, as .*: none"):
        nmf(anndata.AnnData(obs=cells().obs), 1)


@pytest.mark.parametrize("mask", ["auto", None])
def test_the_run_of_an_anndata_has_the_names_of_the_chosen_genes(mask: str | None, tmp_path: Path) -> None:
    adata = cells()
    nmf_of_cells(adata, 2, mask_var=mask, store=tmp_path / "run.zarr", **ASKED)
    result = Run.load_result(tmp_path / "run.zarr")
    assert result.row_names is not None
    assert result.column_names is not None
    assert list(result.row_names[:]) == list(adata.obs_names)
    assert list(result.column_names[:]) == list(adata.var_names[:: 1 if mask is None else 2])
