"""The benchmarks: the comparison with other packages on a small matrix, and what all programs share."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from lib import passes
from support.command import Forks

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "run_peers.py"


@pytest.mark.real  # half a minute
def test_the_table_has_a_row_for_each_method(tmp_path: Path) -> None:
    asked = ["--short", "--case", "dense, in memory", "--without", "nmf-torch", "--output", str(tmp_path)]
    done = subprocess.run([sys.executable, PEERS, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| dense")]
    assert [row[1] for row in rows] == [
        "dask_nmf hals",
        "dask_nmf mu",
        "NMF cd, nndsvda",
        "NMF mu, nndsvda",
        "MiniBatchNMF",
        "dask.array, Lee–Seung",
        "floor: the two products, once (BLAS)",
        "Spark ALS",
    ]
    assert float(rows[0][3]) <= 1.005  # ours is there,
    assert float(rows[0][5]) == 1  # and what the others are compared with
    assert "Left out: nmf-torch." in table
    for name in ("time", "reads", "memory"):
        assert (tmp_path / f"{name}.svg").read_text().rstrip().endswith("</svg>")


def test_a_peer_that_is_not_installed_is_an_error(
    forks: Forks, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hidden = f"import sys; sys.modules['nmf'] = None; sys.path.insert(0, {str(PEERS.parent)!r}); "
    script = tmp_path_factory.mktemp("hidden") / "script.py"
    script.write_text(f"{hidden}import run_peers; run_peers.main()")
    done = forks.run([script, "--output", tmp_path], tmp_path)
    assert done.returncode == 1
    assert "nmf-torch (nmf)" in done.stderr.partition("not installed: ")[2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", sorted(path.stem for path in PEERS.parent.glob("run_*.py")))
def test_every_program_finds_what_it_imports(program: str) -> None:
    assert callable(import_module(program).main)


def test_passes_of_the_benchmarks_run_over_small_panels() -> None:
    v = np.random.default_rng(0).random((60, 12), dtype=np.float32)
    panels, plan = passes.open_panels(v, 3)
    h = np.ones((3, 12), np.float32)
    assert panels.edges == plan.edges
    for engine in (panels, passes.without_prefetch(panels)):
        passes.hals_pass(engine, h)
    for look in (passes.read, passes.multiply):
        passes.bare_pass(panels, look, h)
    for solves in (False, True):
        passes.products_in_memory(panels, v, h, solves)()
    passes.idle_pass(3)


def test_every_program_is_run_by_make_and_documented() -> None:
    scripts = {path.name for path in PEERS.parent.glob("*.py") if "__main__" in path.read_text()}
    page, makefile = ((ROOT / name).read_text() for name in ("docs/measurements.md", "Makefile"))
    documented = set(re.findall(r"benchmarks/(\w+\.py)", page))
    (list_of_scripts,) = re.findall(r"^BENCHMARKS = (.*)$", makefile, re.MULTILINE)
    run = set(re.findall(r"\w+\.py", list_of_scripts))
    assert scripts == documented == run
