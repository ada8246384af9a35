"""A conversion stays within its memory, and leaves nothing that counts when it is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zarr
from PIL import Image
from support.command import COMMAND
from support.converted import bytes_of, matrix_of
from support.servers import reads_peaks, until

from dask_nmf.ingest import convert
from dask_nmf.ingest.formats.documents import counting

ROWS = 1_000_000
PEAK = 700_000_000  # bytes, of which the program itself takes a third
MEASURED = """
import sys
from pathlib import Path
from dask_nmf.ingest import convert
convert(sys.argv[1], sys.argv[2], row="user", column="item", value="rating")
print(1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]))
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 8 million entries, no two of one cell, of rows in any order."""
    path = tmp_path_factory.mktemp("table") / "v.csv"
    users = np.random.default_rng(0).permutation(ROWS)
    with path.open("w") as file:
        file.write("user,item,rating\n")
        for turn in range(8):
            file.writelines(
                f"user-{user},item-{turn * 700 + user % 700},{user % 9 + 1}\n" for user in users.tolist()
            )
    return path


@reads_peaks
def test_a_table_of_entries_larger_than_the_memory_for_it(table: Path) -> None:
    place = table.with_name("v.zarr")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, table, place], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < PEAK


# Conversions that stand still before their end, so that they are killed before it on a busy machine too.
HELD_BEFORE_A_CHECKPOINT = """
import time
from dask_nmf.cli.main import main
from dask_nmf.ingest.output import checkpoint
checkpoint.Checkpoint.reach = lambda *given: time.sleep(900)
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_conversion_begins_anew(tmp_path: Path, number: signal.Signals) -> None:
    v = np.random.default_rng(0).integers(1, 9, (400_000, 8))
    np.savetxt(tmp_path / "v.csv", v, fmt="%d", delimiter=",")
    words = ["convert", "v.csv", "v.zarr"]
    held = [sys.executable, "-c", HELD_BEFORE_A_CHECKPOINT, *words]
    with subprocess.Popen(held, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        until(lambda: any(tmp_path.glob(".v.zarr.*.partial")))
        process.send_signal(number)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    assert not (tmp_path / "v.zarr").exists()
    subprocess.run([*COMMAND, *words], cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), v)
    assert {path.name for path in tmp_path.iterdir()} == {"v.csv", "v.zarr"}


HELD = """
import time
from dask_nmf.cli.main import main
from dask_nmf.cli.process.signals import interrupted
from dask_nmf.ingest.entries import journal
from dask_nmf.ingest.entries.sorting import RowSorter
journal.SECONDS = 0
RowSorter.__init__.__defaults__ = (2**16, 2**20)
enter = journal.Journal._enter

def enter_and_wait(entered):  # in a thread, whose end the process waits for
    enter(entered)
    while not interrupted():
        time.sleep(0.02)

journal.Journal._enter = enter_and_wait
main()
"""


def killed(script: str, words: Sequence[str], folder: Path, file: str, number: signal.Signals) -> int:
    """End a conversion by a signal when its scratch folder has a file with content; return its exit code."""
    output = words[2]
    with subprocess.Popen(
        [sys.executable, "-c", script, *words], cwd=folder, stderr=subprocess.DEVNULL
    ) as process:
        found = partial(folder.glob, f".{output}.*.partial/scratch/{file}")
        until(lambda: any(path.stat().st_size for path in found()))
        process.send_signal(number)
    assert not (folder / output).exists()
    return process.returncode


def assert_goes_on(words: Sequence[str], folder: Path, done_before: str) -> None:
    """Check that a conversion that was stopped goes on, and ends as one that was not."""
    command, source, output, *options = words
    done = subprocess.run([*COMMAND, *words], cwd=folder, check=True, capture_output=True, text=True)
    assert f"{done_before} before the conversion was stopped; it goes on" in done.stderr
    whole = [command, source, "expected.zarr", *options]
    done = subprocess.run([*COMMAND, *whole], cwd=folder, check=True, capture_output=True, text=True)
    assert "stopped" not in done.stderr
    assert bytes_of(folder / output) == bytes_of(folder / "expected.zarr")
    assert {path.name for path in folder.iterdir()} == {source, output, "expected.zarr"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_conversion_of_entries_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    with (tmp_path / "v.csv").open("w") as file:
        file.write("user,item,rating\n")
        file.writelines(f"u{i * 7919 % 50_021},i{i % 11},{i % 9 + 1}\n" for i in range(500_000))
    words = ["convert", "v.csv", "v.zarr", "--row", "user", "--column", "item", "--value", "rating"]
    code = killed(HELD, words, tmp_path, "runs.jsonl", number)
    assert code == (143 if number == signal.SIGTERM else -number)
    assert_goes_on(words, tmp_path, "entries were sorted")


@pytest.mark.parametrize("options", [{"min_count": 3}, {"hash_columns": 64}])
def test_words_are_counted_by_processes_as_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, int]
) -> None:
    rng = np.random.default_rng(0)
    with (tmp_path / "v.jsonl").open("w") as file:
        for _ in range(2000):
            words = " ".join(f"w{word}" for word in rng.zipf(1.4, 30) % 500)
            file.write(f'{{"body": "{words}"}}\n')
    convert(tmp_path / "v.jsonl", tmp_path / "expected.zarr", text="body", **options)
    monkeypatch.setattr(counting, "MUCH", 0)
    monkeypatch.setattr(counting, "TEXTS", 100)
    monkeypatch.setattr(counting, "CPU_COUNT", 2)
    convert(tmp_path / "v.jsonl", tmp_path / "v.zarr", text="body", **options)
    assert bytes_of(tmp_path / "v.zarr") == bytes_of(tmp_path / "expected.zarr")


HELD_ROWS = """
import time
from dask_nmf.cli.main import main
from dask_nmf.ingest.formats import images
from dask_nmf.ingest.formats.matrices import matrix_rows
from dask_nmf.ingest.formats.tables import parquet_table
from dask_nmf.ingest.output import checkpoint, growing
matrix_rows.BATCH = images.BATCH = parquet_table.BATCH = 2**18
checkpoint.SECONDS, growing.AT_ONCE = 0, 1
reach = checkpoint.Checkpoint.reach

def reach_and_wait(checkpoint, position):
    reach(checkpoint, position)
    if checkpoint._file is not None and checkpoint._file.exists():
        time.sleep(900)

checkpoint.Checkpoint.reach = reach_and_wait
main()
"""
ROWS_OF = {
    "v.csv": lambda path, v: np.savetxt(path, v, fmt="%d", delimiter=","),
    "v.parquet": lambda path, v: pyarrow.parquet.write_table(pyarrow.table(dict(enumerate_columns(v))), path),
    "v.npy": np.save,
    "v.zarr": lambda path, v: zarr.create_array(path, data=v, chunks=(1000, 5)),
    "v.h5": lambda path, v: h5py.File(path, "w").create_dataset("X", data=v).file.close(),
    "v.tif": lambda path, v: save_stack(path, v[:500].reshape(-1, 80, 50)),
}


def enumerate_columns(v: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [(str(j), column) for j, column in enumerate(v.T)]


def save_stack(path: Path, frames: np.ndarray) -> None:
    first, *others = (Image.fromarray(frame) for frame in np.repeat(frames, 40, axis=0).astype(np.uint8))
    first.save(path, save_all=True, append_images=others)


@pytest.mark.parametrize("name", ROWS_OF)
def test_a_killed_conversion_of_rows_goes_on(tmp_path: Path, name: str) -> None:
    ROWS_OF[name](tmp_path / name, np.random.default_rng(0).integers(0, 99, (50_000, 8)))
    words = ["convert", name, "out.zarr", "--chunks", "100"]
    assert killed(HELD_ROWS, words, tmp_path, "checkpoint.npz", signal.SIGKILL) == -signal.SIGKILL
    assert_goes_on(words, tmp_path, "were written")
