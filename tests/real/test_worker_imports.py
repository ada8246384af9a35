"""Workers do not import what their tasks do not need: it would take memory and seconds from each of them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client
from support.cuts import cut_both_ways
from support.matrices import anndata_group, low_rank

from dask_nmf import nmf, transform
from dask_nmf.cluster.backends.local import local_cluster

HEAVY = ("dask.array", "dask.dataframe", "pandas", "pyarrow", "xarray")  # about 100 MiB
V = low_rank(60, 24, 3, noise=1)


@pytest.fixture(scope="module")
def worker() -> Iterator[Client]:
    """One process that has imported nothing but what our passes need."""
    with local_cluster(1, 1, 1_000_000_000) as client:
        yield client


@pytest.fixture
def stored(tmp_path: Path) -> dict[str, str]:
    """Return the places of V by kind, in several panels each."""
    for name, chunks in {"dense": (20, 24), "tiles": (20, 12)}.items():
        zarr.create_array(tmp_path / name, data=V, chunks=chunks)
    zarr.create_array(tmp_path / "holes", data=np.where(V < 1, np.nan, V), chunks=(20, 24))
    anndata_group(np.where(V < 1, 0, V), tmp_path / "csr", "csr_matrix")
    return {name: str(tmp_path / name) for name in ("dense", "tiles", "holes", "csr")}


FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "hals": ("dense", {}),
    "mu": ("dense", {"solver": "mu"}),
    "kullback-leibler": ("dense", {"beta_loss": "kullback-leibler"}),
    "missing": ("holes", {"missing": "nan"}),
    "held out": ("dense", {"validation_fraction": 0.1}),
    "csr": ("csr", {}),
    "sgd": ("dense", {"solver": "sgd"}),
    "singular vectors": ("dense", {"init": "nndsvda"}),
    "random": ("dense", {"init": "random", "alpha_W": 0.1, "l1_ratio": 1}),
}


@pytest.mark.parametrize("fit", FITS)
def test_a_worker_imports_no_library_of_tables_or_labelled_arrays(
    fit: str, worker: Client, stored: dict[str, str], tmp_path: Path, several_panels: None
) -> None:
    source, options = FITS[fit]
    result = nmf(stored[source], 3, max_iter=2, store=tmp_path / "run", random_state=0, **options)
    h = zarr.open_array(tmp_path / "run/H")[:]  # result.H would be computed on the cluster
    transform(stored[source], h, missing=options.get("missing"))
    assert result.n_iter == 2
    assert_light(worker)


@pytest.mark.parametrize("init", ["sample", "random"])
def test_nor_where_v_is_cut_both_ways(
    init: str, worker: Client, stored: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_both_ways(monkeypatch, (0, 20, 40, 60), (0, 12, 24), 1)
    nmf(stored["tiles"], 3, max_iter=2, store=tmp_path / "run", init=init)
    assert_light(worker)


def assert_light(worker: Client) -> None:
    def imported(heavy: tuple[str, ...]) -> list[str]:  # a local function: a worker would import this module
        return [name for name in heavy if name in sys.modules]

    assert worker.run(imported, HEAVY) == {address: [] for address in worker.nthreads()}
