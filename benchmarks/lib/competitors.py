"""Methods of other packages, besides scikit-learn in memory: nmf-torch, dask.array and Spark."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
from lib.methods import EPOCHS, Case, Factors, Method, Trail, from_scratch
from sklearn.decomposition import MiniBatchNMF

TORCH_ITERATIONS = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 60, 80, 100)
LEE_SEUNG_ITERATIONS = (*range(10, 101, 10), *range(120, 401, 20))
SPARK_ITERATIONS = (1, 2, 3, 5, 8, 10, 15, 20, 30, 40)
BATCH = 1024  # rows, as MiniBatchNMF has it
TRANSFORM_ITERATIONS = 50  # for W in the end; the default, 200, takes much longer than an epoch
SPARK_MEMORY = "4g"


def torch_nmf() -> Method:
    """Return nmf-torch with its default algorithm; its ``run_nmf`` fails below 10 iterations."""

    def fit(case: Case, length: int) -> Factors:
        from nmf.nmf_models import NMFBatchHALS  # noqa: PLC0415  a peer that not everyone has

        none = dict.fromkeys(("alpha_W", "l1_ratio_W", "alpha_H", "l1_ratio_H"), 0.0)
        model = NMFBatchHALS(
            case.rank, init="nndsvdar", beta_loss=2.0, tol=0.0, random_state=0, fp_precision="float",
            device_type="cpu", n_jobs=CPU_COUNT, max_iter=length, **none,
        )  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            w = model.fit_transform(case.V)
        return w.numpy(), model.W.numpy()

    def reads(length: int) -> int:
        return 10 + 2 * length  # its SVD 6, its checks 3, its first product

    return Method("nmf-torch", fit, from_scratch(fit, TORCH_ITERATIONS), reads, needs="nmf")


def lee_seung(V: da.Array, rank: int) -> Iterator[tuple[da.Array, da.Array]]:
    """Yield W and H after each multiplicative update (Lee & Seung 2001), written with `dask.array`."""
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
    """Start two workers of one thread each, with Dask's default settings."""
    limits: dict[str, Any] = {"memory_limit": memory_limit, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, threads_per_worker=1, **limits) as cluster, Client(cluster) as client:
        yield client


def dask_array(place: Any = contextlib.nullcontext) -> Method:
    """Return `lee_seung` as a method; its blocks are V's chunks, or eighths of an array in memory."""

    def prepare(case: Case) -> Case:
        in_memory = isinstance(case.V, np.ndarray)
        chunks = (-(-case.V.shape[0] // 8), -1) if in_memory else case.V.chunks
        return case._replace(V=da.from_array(case.V, chunks=chunks))

    def trail(case: Case) -> Trail:
        for length, (w, h) in enumerate(lee_seung(case.V, case.rank), 1):
            if length in LEE_SEUNG_ITERATIONS:
                yield length, np.asarray(w), np.asarray(h)
            if length == LEE_SEUNG_ITERATIONS[-1]:
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
    """Return MiniBatchNMF fed with batches of rows of a stored V; W takes one more read."""

    def fit(case: Case, length: int) -> Factors:
        model = MiniBatchNMF(case.rank, random_state=0, transform_max_iter=TRANSFORM_ITERATIONS)
        firsts = range(0, case.V.shape[0], BATCH)
        for _ in range(length):
            for first in firsts:
                model.partial_fit(case.V[first : first + BATCH])
        parts = [model.transform(case.V[first : first + BATCH]) for first in firsts]
        return np.concatenate(parts), model.components_

    return Method("MiniBatchNMF, streamed", fit, from_scratch(fit, lengths), lambda length: 1 + length)


@contextlib.contextmanager
def spark_session() -> Iterator[Any]:
    """Start Spark on all cores, with a folder for checkpoints: without one ALS overflows the stack."""
    from pyspark.sql import SparkSession  # noqa: PLC0415  a peer that not everyone has

    options = {"spark.driver.memory": SPARK_MEMORY, "spark.ui.enabled": "false", "spark.log.level": "ERROR",
             "spark.ui.showConsoleProgress": "false", "spark.driver.host": "127.0.0.1"}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        session = SparkSession.builder.master(f"local[{CPU_COUNT}]").config(map=options).getOrCreate()
        session.sparkContext.setCheckpointDir(folder)
        yield session
        session.stop()


def spark(penalty: float) -> Method:
    """Return Spark's non-negative ALS on cached ratings, with its factors collected."""

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
        options = {"userCol": "user", "itemCol": "item", "ratingCol": "rating", "seed": 0}
        model = ALS(rank=case.rank, maxIter=length, regParam=penalty, nonnegative=True, **options).fit(
            ratings
        )
        factors = np.zeros((users, case.rank), np.float32), np.zeros((items, case.rank), np.float32)
        for factor, frame in zip(factors, (model.userFactors, model.itemFactors), strict=True):
            rows = frame.collect()
            factor[[row.id for row in rows]] = [row.features for row in rows]
        return factors[0], factors[1].T

    trail = from_scratch(fit, SPARK_ITERATIONS)
    return Method("Spark ALS", fit, trail, lambda length: 1 + 2 * length, prepare, spark_session, "pyspark")
