"""A notebook in a real Jupyter kernel: the bar moves, results show themselves, and figures are drawn."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from support.servers import PATIENCE
from traitlets.config import Config

CELLS = [
    """%matplotlib inline
import numpy as np
from dask_nmf import NMF, NMFComponentsDisplay, Run, nmf, plan, select_rank
V = np.random.default_rng(0).random((300, 20))
result = nmf(V, 3, max_iter=5, tol=0, store="run.zarr", verbose=1)""",
    "result",
    "plan(V, 3)",
    "Run.load('run.zarr')",
    "selection = select_rank(V, '1:3', n_init=2, holdout=0.1, max_iter=3)\nselection",
    "result.plot.error();",
    "result.plot.components(image_shape=(4, 5));",
    "result.plot.weights();",
    "selection.plot.error();",
    "selection.plot.stability();",
    "selection.plot.consensus();",
    "model = NMF(3, max_iter=3, tol=0).fit(V)\nNMFComponentsDisplay.from_estimator(model).ax_;",
]
WIDGETS = "application/vnd.jupyter.widget-state+json"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after all of its cells have run."""
    folder: Path = tmp_path_factory.mktemp("notebook")
    cells = [nbformat.v4.new_code_cell(text) for text in CELLS]
    book = nbformat.v4.new_notebook(cells=cells)
    # Sockets of the kernel are files: a port that is free may be taken until it listens.
    places = Config(KernelManager={"transport": "ipc", "ip": str(folder / "kernel")})
    patient = {"timeout": PATIENCE, "startup_timeout": PATIENCE}
    NotebookClient(
        book, kernel_name="python3", resources={"metadata": {"path": folder}}, config=places, **patient
    ).execute()  # fmt: skip
    return book


def shown(notebook: Any, start: str, kind: str) -> list[str]:
    """Return what a cell shows in a kind of content."""
    cell = next(cell for cell in notebook.cells if cell.source.startswith(start))
    return [output.data[kind] for output in cell.outputs if "data" in output and kind in output.data]


def test_a_bar_shows_the_passes_while_they_are_made(notebook: Any) -> None:
    assert shown(notebook, "%matplotlib", "application/vnd.jupyter.widget-view+json")
    states = [one["state"] for one in notebook.metadata.widgets[WIDGETS]["state"].values()]
    (bar,) = (state for state in states if state["_model_name"] == "FloatProgressModel")
    assert bar["value"] == bar["max"]
    texts = [state["value"] for state in states if state["_model_name"] == "HTMLModel"]
    assert any("5 passes" in text.replace("\u2007", " ") for text in texts), texts  # a wide space


@pytest.mark.parametrize(
    ("start", "words", "curve"),
    [
        ("result", "300 x 20", True),
        ("plan", "300 x 20", False),
        ("Run", "300 x 20", True),
        ("selection =", "stability", True),
    ],
)
def test_results_show_themselves(notebook: Any, start: str, words: str, curve: bool) -> None:
    (html,) = shown(notebook, start, "text/html")
    assert words in html
    assert ("<svg" in html) is curve


@pytest.mark.parametrize("start", [text for text in CELLS if ".plot." in text or "Display" in text][1:])
def test_figures_are_drawn(notebook: Any, start: str) -> None:
    assert len(shown(notebook, start, "image/png")) == 1
