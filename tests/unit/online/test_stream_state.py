"""The state of a stream: its bound, and what it knows of rows that are gone."""

import pickle
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from support.matrices import Array
from support.streams import losses, relative

from dask_nmf import NMF
from dask_nmf.execution.tasks.block_pass import PassSpec, process_block
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.online.from_factors import state_from_factors
from dask_nmf.online.refit import sums_after_refit
from dask_nmf.online.reservoir import sample_size
from dask_nmf.options.settings import Settings
from dask_nmf.solvers.hals import HALS, Penalty
from dask_nmf.solvers.newton import KLNewton


def test_what_is_kept_has_a_bound() -> None:
    random = np.random.default_rng(0)
    model = NMF(2, random_state=0)
    sizes = []
    for _ in range(12):
        model.partial_fit(random.random((400, 5)))
        sizes.append(len(pickle.dumps(model)))
    assert sizes[-1] < 1.1 * sizes[4] < 1000 * 5 * 8 * 2
    assert sample_size(stored=10**9, rows=10**3, rank=20) == 40  # rows of 8 MB


@pytest.mark.parametrize("beta", [2.0, 1.0])
def test_what_the_sample_does_not_have_stays_known(beta: float) -> None:
    random = np.random.default_rng(0)
    mixing = np.array([[1, 0.5, 0], [0, 1, 0], [0, 0.2, 1.0]])
    w, h = random.random((50, 3)), random.random((3, 12))
    before, seen = mixing @ h, np.arange(12) < 8
    solver = HALS() if beta == 2 else KLNewton(1e-12, Penalty())

    def held(v: Array) -> Any:
        return v if beta == 2 else MaskedBlock(v, None, np.arange(50), EntryMask(beta=beta))

    def summed(w: Array, h: Array) -> Sums:
        return process_block(held(v), h, PassSpec(lambda *_: w, solver))[1]

    v = w @ before
    got, sums = sums_after_refit(summed(w, before), held(v * seen), before, h * seen, solver)
    np.testing.assert_allclose(got, h, rtol=1e-4)
    expected = summed(w @ mixing, h)
    np.testing.assert_allclose(sums.num[:, ~seen], expected.num[:, ~seen], rtol=1e-3)
    if beta == 1:
        np.testing.assert_allclose(sums.gram[~seen], expected.gram[~seen], rtol=1e-3)


@losses
def test_what_is_kept_of_a_fit_stands_for_its_rows(loss: str) -> None:
    random = np.random.default_rng(0)
    w, h = random.gamma(0.5, 1, (3000, 4)), random.gamma(0.5, 1, (4, 12))
    settings = Settings(4, beta_loss=loss)
    cuts = [(3000,), (1000, 1, 1999), (500,) * 6]
    kept = [state_from_factors(da.from_array(w, chunks=(cut, 2)), h, settings) for cut in cuts]
    v, samples = (
        kept[0].scale * (w @ h),
        [one.sample if loss == "frobenius" else one.sample.v for one in kept],
    )
    for one, sample in zip(kept, samples, strict=True):
        assert len(sample) < 1500
        np.testing.assert_allclose(sample, samples[0], rtol=1e-12)
        if loss == "frobenius":
            inner = w * one.scale * one.unit
            np.testing.assert_allclose(one.sums.gram, inner.T @ inner, rtol=1e-12)
            np.testing.assert_allclose(one.sums.num, inner.T @ inner @ h / one.unit, rtol=1e-12)
    if loss == "frobenius":
        np.testing.assert_allclose(samples[0].T @ samples[0], v.T @ v, rtol=0.1)
    else:
        np.testing.assert_allclose(samples[0].sum(axis=0), v.sum(axis=0), rtol=0.1)


@pytest.mark.parametrize(
    ("loss", "noise", "rows", "loaded"),
    [
        ("kullback-leibler", 0, 200, False),
        ("frobenius", 0.05, 200, True),
        ("kullback-leibler", 0.05, 20, True),
        ("frobenius", 0.05, 20, False),
    ],
)
def test_rows_of_another_kind_after_a_fit_do_not_drive_out_its_own(
    loss: str, noise: float, rows: int, loaded: bool, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    old, new = np.zeros((rows, 30)), np.zeros((300, 30))
    for v, columns in ((old, slice(0, 15)), (new, slice(15, 30))):
        v[:, columns] = random.random((len(v), 3)) @ random.random((3, 15))
        v += noise * random.random(v.shape)
    store = tmp_path / "run.zarr" if loaded else None
    model = NMF(6, beta_loss=loss, random_state=1, store=store).fit(old)
    model = NMF.load(store) if store else model
    for batch in np.array_split(new, 3):
        model.partial_fit(batch)
    both = np.vstack([old, new])
    whole = NMF(6, beta_loss=loss, random_state=1).fit(both)
    reached = relative(both, model.components_, loss)
    assert reached <= 1.02 * relative(both, whole.components_, loss) + 1e-3
