"""The command from store to store: exit codes, messages, kills, and no secret anywhere."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import obstore
import pytest
import zarr
from PIL import Image
from support import faults
from support.buckets import KEY, PASSES, SECRET, V, enter, only_moto, same_factors, store
from support.command import Forks
from support.converted import matrix_of, names_of
from support.fits import hold_of, start, wait_for
from support.holds import hold
from support.matrices import Array
from support.servers import needs

from dask_nmf import Run, transform
from dask_nmf.errors import (
    StoreAccessError,
)
from dask_nmf.ingest import convert
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.objects import requests
from dask_nmf.storage.objects.object_store import ObjectStore

pytestmark = needs("moto_server", "rclone")

only_rclone = pytest.mark.parametrize("server", ["rclone"], indirect=True)


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(forks: Forks, tmp_path: Path) -> Command:
    """Return a function that calls the command, which has the environment of the test."""
    return lambda *words: forks.call(words, tmp_path)


@pytest.mark.usefixtures("server")
def test_a_conversion_to_a_store_and_back(v: Array, tmp_path: Path, command: Command) -> None:
    np.save(tmp_path / "v.npy", v)
    output = "s3://bucket/converted.zarr"
    assert convert(tmp_path / "v.npy", output).shape == v.shape
    convert(output, tmp_path / "v.zarr", chunks=70)
    convert(output, "s3://bucket/steps.zarr", min_count=1, log1p=True)
    convert(tmp_path / "v.npy", tmp_path / "alike.zarr", like="s3://bucket/steps.zarr")
    np.testing.assert_allclose(matrix_of(tmp_path / "alike.zarr"), np.log1p(v), rtol=1e-6)
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), v)
    assert "exists" in command("convert", str(tmp_path / "v.npy"), output).stderr
    assert command("convert", str(tmp_path / "v.npy"), output, "--overwrite").returncode == 0


@pytest.mark.usefixtures("server")
def test_tables_and_hdf5_in_a_store_are_converted(v: Array, tmp_path: Path, command: Command) -> None:
    bucket = requests.connect("s3://bucket/in")
    for number, part in enumerate(np.array_split(v, 2)):
        np.savetxt(tmp_path / "v.csv", part, delimiter=",")
        obstore.put(bucket, f"part-{number}.csv.gz", gzip.compress((tmp_path / "v.csv").read_bytes()))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["X"] = v
    obstore.put(bucket, "v.h5", (tmp_path / "v.h5").read_bytes())
    for number, source in enumerate(["s3://bucket/in/*.gz", "s3://bucket/in", "s3://bucket/in/v.h5"]):
        done = command("convert", source, str(tmp_path / f"{number}.zarr"))
        assert done.returncode == 0, done.stderr
        np.testing.assert_allclose(matrix_of(tmp_path / f"{number}.zarr"), v, rtol=1e-6)
    failed = command("convert", "s3://bucket/in/none.csv", str(tmp_path / "none.zarr"))
    assert failed.returncode != 0
    assert "s3://bucket/in/none.csv" in failed.stderr
    assert failed.stderr.count("\n") == 1


@pytest.mark.usefixtures("server")
def test_texts_and_images_in_a_store_are_converted_as_on_a_disk(tmp_path: Path, command: Command) -> None:
    bucket = requests.connect("s3://bucket")
    for number in range(40):
        text = tmp_path / "texts" / str(number % 2) / f"{number} é.txt"
        image = tmp_path / "images" / f"{number}.png"
        for path in text, image:
            path.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("tea " * number + "rice")
        Image.fromarray(np.full((4, 3), number, np.uint8)).save(image)
        for path in text, image:
            obstore.put(bucket, path.relative_to(tmp_path).as_posix(), path.read_bytes())
    for kind in ("texts", "images"):
        convert(tmp_path / kind, tmp_path / f"{kind}.zarr")
        done = command("convert", f"s3://bucket/{kind}", str(tmp_path / f"{kind}-of-store.zarr"))
        assert done.returncode == 0, done.stderr
        one, other = tmp_path / f"{kind}.zarr", tmp_path / f"{kind}-of-store.zarr"
        np.testing.assert_array_equal(matrix_of(one), matrix_of(other))
        assert names_of(one, "obs") == names_of(other, "obs")


def test_the_command_from_store_to_store(
    server: faults.Proxy, on_disk: Path, v: Array, command: Command
) -> None:
    run, output = "s3://bucket/run.zarr", "s3://bucket/W.zarr"
    asked = ["--rank", "5", "--tol", "0", "--max-iter", str(PASSES), "--workers", "2", "--debug"]
    done = command("fit", V, "--output", run, *asked)
    assert done.returncode == 0, done.stderr
    turned = command("transform", run, V, "--output", output)
    assert turned.returncode == 0, turned.stderr
    H = Run.load_result(run).array("H")[:]
    np.testing.assert_allclose(H, Run.load_result(on_disk).array("H")[:], rtol=2e-2, atol=1e-2)  # another cut
    W = zarr.open_group(ObjectStore(output), mode="r")["W"][:]
    np.testing.assert_array_equal(W, transform(v, H).compute())
    assert "exists" in command("transform", run, V, "--output", output).stderr
    assert command("transform", run, V, "--output", output, "--overwrite").returncode == 0
    bucket = requests.connect("s3://bucket")
    stored = {
        told["path"]: bytes(obstore.get(bucket, told["path"]).bytes())
        for told in obstore.list(bucket).collect()
    }
    assert {name.partition("/")[0] for name in stored} == {"v.zarr", "run.zarr", "W.zarr"}  # and no lock
    tasks = pickle.dumps(open_matrix(V).reader)
    for text in (*stored.values(), done.stderr.encode(), turned.stderr.encode(), tasks):
        assert SECRET.encode() not in text
        assert KEY.encode() not in text


@only_rclone
def test_a_wrong_key_is_one_line(
    server: faults.Proxy, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    done = command("fit", V, "--output", "s3://bucket/run.zarr", "--rank", "5")
    assert done.returncode == 74
    assert done.stderr.startswith(
        f"dask-nmf: {V}: the store refuses access (403 Forbidden); give credentials"
    )
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(StoreAccessError):
        open_matrix(V)


@only_moto
def test_sigkill_of_everything_then_the_same_command(
    server: faults.Proxy, tmp_path: Path, command: Command
) -> None:
    asked = ["--rank", "5", "--tol", "0", "--max-iter", "30", "--workers", "2", "--log-format", "json"]
    whole, run = "s3://bucket/whole.zarr", "s3://bucket/run.zarr"
    assert command("fit", V, "--output", whole, *asked).returncode == 0
    moments = random.Random(0)
    for number, held in enumerate(("pass 14", "pass 28")):
        log = tmp_path / f"{number}.log"
        hold(hold_of(log), held)  # it is killed before it is over
        killed = start(["fit", V, "--output", run, *asked], tmp_path, log)
        wait_for(killed, "pass")
        time.sleep(moments.uniform(0, 0.5))
        os.killpg(killed.pid, signal.SIGKILL)
        killed.process.wait()
    done = command("fit", V, "--output", run, *asked)
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stderr
    same_factors(run, whole)


@only_moto
def test_what_is_not_there_is_one_line(
    server: faults.Proxy, v: Array, tmp_path: Path, command: Command
) -> None:
    store(tmp_path / "v.zarr", v)
    here = str(tmp_path / "v.zarr")
    for words, code, told in (
        (["fit", "s3://bucket/no.zarr", "-k", "5", "-o", "s3://bucket/r"], 2, "there is nothing at s3://bucket/no.zarr"),
        (["fit", "s3://bucket/no.npy", "-k", "5", "-o", "s3://bucket/r"], 2, "there is nothing at s3://bucket/no.npy"),
        (["fit", here, "-k", "5", "-o", "s3://no/r"], 2, "s3://no/r: there is no such bucket"),
        (["fit", here, "-k", "5", "-o", "http://127.0.0.1:1/r"], 2, "http://127.0.0.1:1/r can be read only"),
        (["info", "s3://bucket/r"], 2, "there is no run at s3://bucket/r"),
        (["info", V], 2, f"{V} is not a run"),
    ):  # fmt: skip
        done = command(*words)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
        assert done.stderr.startswith(f"dask-nmf: {told}")


def test_a_machine_without_certificates_is_told_so(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    enter(monkeypatch, "http://127.0.0.1:9")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, "/nothing")
    done = command("info", "s3://bucket/run.zarr")
    assert done.returncode == 2
    assert done.stderr.startswith("dask-nmf: s3://bucket/run.zarr: no certificates of authorities are found")
