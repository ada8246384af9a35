"""What others factorise with, besides scikit-learn in memory: nmf-torch, dask.array, Spark."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from methods import EPOCHS, Case, Factors, Method, Trail, anew
from sklearn.decomposition import MiniBatchNMF

TORCH_ITERATIONS = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 60, 80, 100)
STEPS = (*range(10, 101, 10), *range(120, 401, 20))  # of Lee & Seung
SPARK_ITERATIONS = (1, 2, 3, 5, 8, 10, 15, 20, 30, 40)
BATCH = 1024  # rows, as MiniBatchNMF has it
TRANSFORMS = 50  # iterations for W in the end: by default 200, much longer than an epoch
SPARK_MEMORY = "4g"


def torch_nmf() -> Method:
    """nmf-torch with its default algorithm. Its ``run_nmf`` fails below 10 iterations, its model does not."""

    def fit(case: Case, length: int) -> Factors:
        from nmf.nmf_models import NMFBatchHALS  # noqa: PLC0415  a peer that not everyone has

        none = dict.fromkeys(("alpha_W", "l1_ratio_W", "alpha_H", "l1_ratio_H"), 0.0)
        model = NMFBatchHALS(
            case.rank, init="nndsvdar", beta_loss=2.0, tol=0.0, random_state=0, fp_precision="float",
            device_type="cpu", n_jobs=os.cpu_count(), max_iter=length, **none,
        )  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            w = model.fit_transform(case.V)
        return w.numpy(), model.W.numpy()

    def reads(length: int) -> int:
        return 10 + 2 * length  # its SVD 6, its checks 3, its first product

    return Method("nmf-torch", fit, anew(fit, TORCH_ITERATIONS), reads, needs="nmf")


def lee_seung(V: da.Array, rank: int) -> Iterator[tuple[da.Array, da.Array]]:
    """Multiplicative updates (Lee & Seung 2001) as one writes them with `dask.array`."""
    random = da.random.default_rng(0)
    scale = np.float32(np.sqrt(float(V.mean()) / rank))
    W = (scale * random.random((V.shape[0], rank), dtype=np.float32, chunks=(V.chunks[0], rank))).persist()
    H = (scale * random.random((rank, V.shape[1]), dtype=np.float32, chunks=(rank, V.chunks[1]))).persist()
    least = np.float32(1e-9)
    while True:
        W = (W * (V @ H.T) / (W @ (H @ H.T) + least)).persist()
        H = (H * (W.T @ V) / ((W.T @ W) @ H + least)).persist()
        yield W, H


@contextlib.contextmanager
def plain_cluster(memory_limit: int) -> Iterator[Client]:
    """Two workers of one thread, with the settings that Dask comes with."""
    limits: dict[str, Any] = {"memory_limit": memory_limit, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, threads_per_worker=1, **limits) as cluster, Client(cluster) as client:
        yield client


def dask_array(place: Any = contextlib.nullcontext) -> Method:
    """`lee_seung`; the blocks are V's chunks, or as Dask cuts an array in memory."""

    def prepare(case: Case) -> Case:
        at_hand = isinstance(case.V, np.ndarray)
        chunks = (-(-case.V.shape[0] // 8), -1) if at_hand else case.V.chunks
        return case._replace(V=da.from_array(case.V, chunks=chunks))

    def trail(case: Case) -> Trail:
        for length, (w, h) in enumerate(lee_seung(case.V, case.rank), 1):
            if length in STEPS:
                yield length, np.asarray(w), np.asarray(h)
            if length == STEPS[-1]:
                return

    def fit(case: Case, length: int) -> Factors:
        steps = lee_seung(case.V, case.rank)
        for _ in range(length):
            w, h = next(steps)
        return np.asarray(w), np.asarray(h)

    return Method(
        "dask.array, Lee–Seung", fit, trail, lambda length: 1 + 2 * length, prepare, place, needs="dask"
    )


def streamed(lengths: Sequence[int] = EPOCHS) -> Method:
    """MiniBatchNMF fed with batches of rows from wherever they are, and W from one more read."""

    def fit(case: Case, length: int) -> Factors:
        model = MiniBatchNMF(case.rank, random_state=0, transform_max_iter=TRANSFORMS)
        firsts = range(0, case.V.shape[0], BATCH)
        for _ in range(length):
            for first in firsts:
                model.partial_fit(case.V[first : first + BATCH])
        parts = [model.transform(case.V[first : first + BATCH]) for first in firsts]
        return np.concatenate(parts), model.components_

    return Method("MiniBatchNMF, streamed", fit, anew(fit, lengths), lambda length: 1 + length)


@contextlib.contextmanager
def spark_session() -> Iterator[Any]:
    """On all cores. Without a folder for checkpoints its ALS overflows the stack after some 20 iterations."""
    from pyspark.sql import SparkSession  # noqa: PLC0415  a peer that not everyone has

    asked = {"spark.driver.memory": SPARK_MEMORY, "spark.ui.enabled": "false", "spark.log.level": "ERROR",
             "spark.ui.showConsoleProgress": "false", "spark.driver.host": "127.0.0.1"}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        session = SparkSession.builder.master(f"local[{os.cpu_count()}]").config(map=asked).getOrCreate()
        session.sparkContext.setCheckpointDir(folder)
        yield session
        session.stop()


def spark(penalty: float) -> Method:
    """Spark's ALS, non-negative; the ratings are cached, its factors collected."""

    def prepare(case: Case) -> Case:
        from pyspark.sql import SparkSession  # noqa: PLC0415

        cells = case.V.tocoo()
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            np.savetxt(file, np.column_stack([*cells.coords, cells.data]), fmt="%d,%d,%.9g")
            file.flush()
            schema = "user int, item int, rating float"
            ratings = SparkSession.active().read.csv(file.name, schema=schema).cache()
            ratings.count()
        return case._replace(V=(ratings, case.V.shape))

    def fit(case: Case, length: int) -> Factors:
        from pyspark.ml.recommendation import ALS  # noqa: PLC0415

        ratings, (users, items) = case.V
        asked = {"userCol": "user", "itemCol": "item", "ratingCol": "rating", "seed": 0}
        model = ALS(rank=case.rank, maxIter=length, regParam=penalty, nonnegative=True, **asked).fit(ratings)
        factors = np.zeros((users, case.rank), np.float32), np.zeros((items, case.rank), np.float32)
        for factor, held in zip(factors, (model.userFactors, model.itemFactors), strict=True):
            rows = held.collect()
            factor[[row.id for row in rows]] = [row.features for row in rows]
        return factors[0], factors[1].T

    trail = anew(fit, SPARK_ITERATIONS)
    return Method("Spark ALS", fit, trail, lambda length: 1 + 2 * length, prepare, spark_session, "pyspark")
