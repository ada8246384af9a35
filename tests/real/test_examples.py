"""The examples, as a person runs them."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_sample_image
from support.command import Forks
from support.docs import ROOT, assert_similar
from support.examples import EXAMPLES, assert_recommends

from dask_nmf import nmf

Run = Callable[..., str]
IMAGES = ROOT / "docs" / "images"


@pytest.fixture
def run(forks: Forks, tmp_path: Path) -> Run:
    """Return a function that runs an example, and returns what it prints on standard output."""

    def run(script: str, *arguments: str | Path) -> str:
        done = forks.run([EXAMPLES / script, *arguments], tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_tutorial_is_beaten(run: Run) -> None:
    lines = run("tutorial.py", "--steps", "300").splitlines()[1:]
    errors = {line.split("  ")[-1]: float(line.split()[0]) for line in lines}
    theirs = [error for name, error in errors.items() if name.startswith("the tutorial")]
    assert len(theirs) == 3
    assert errors["dask_nmf, mu, 100 steps"] < min(theirs) / 10


def test_parts_of_digits(tmp_path: Path, run: Run) -> None:
    picture = tmp_path / "parts.png"
    assert "relative error 0.25" in run("faces.py", str(picture))
    assert_similar(picture, IMAGES / "parts.png")


def test_parts_of_pictures_in_a_file(tmp_path: Path, run: Run) -> None:
    picture, flower = tmp_path / "parts.png", load_sample_image("flower.jpg")[::4, ::4].mean(axis=2)
    patches = sliding_window_view(flower, (16, 12))[::3, ::3].reshape(-1, 16 * 12)
    np.savez(tmp_path / "patches.npz", X=patches.astype(np.uint8), image_shape=[16, 12])
    assert "relative error 0.2" in run("faces.py", picture, "--data", tmp_path / "patches.npz", "--rank", "4")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_gene_programs_of_cells(tmp_path: Path, run: Run) -> None:
    picture = tmp_path / "cells.png"
    output = run("gene_programs.py", str(picture))
    assert_similar(picture, IMAGES / "gene_programs.png")
    assert re.search(r": .*\bMS4A1\b.*; most in CD19\+ B, ", output)  # what is known of B cells,
    assert re.search(r": .*\bGNLY\b.*; most in CD56\+ NK, ", output)  # and of natural killers
    told = {name: float(share) for share, name in re.findall(r"^ +([\d.]+)%  (.*)$", output, re.MULTILINE)}
    assert told["W, 10 programs"] > 2 * told["the commonest kind, always"]
    assert told["W, 10 programs"] > told["all 765 genes"] - 5


def test_signatures_of_tumours(tmp_path: Path, run: Run) -> None:
    picture = tmp_path / "signatures.png"
    output = run("signatures.py", str(picture), "--starts", "2")
    assert_similar(picture, IMAGES / "signatures.png", levels=12)  # of the best of five starts
    divergences = re.search(r"from each start: (\d+) (\d+)$", output, re.MULTILINE)
    assert divergences is not None
    assert min(map(int, divergences.groups())) < 24_589 * 1.01  # scikit-learn's best of six starts
    shares = [float(share) for share in re.findall(r"^ +[1-6] +([\d.]+)% ", output, re.MULTILINE)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.5)
    best = re.search(r"tells HRD best: AUC ([\d.]+); .* alone: ([\d.]+)$", output, re.MULTILINE)
    assert best is not None
    assert float(best[1]) > 0.97 > float(best[2])


@pytest.mark.parametrize(("question", "known"), [("cells", "HLA-DRA"), ("signatures", r"T\[C>T\]A")])
def test_the_rank_of_cells_and_of_tumours(tmp_path: Path, run: Run, question: str, known: str) -> None:
    few = ["--ranks", "3:4", "--starts", "2", "--folds", "1", "--error-bars", "2"]
    output = run("choose_rank.py", question, tmp_path / "rank.png", *few)
    assert (tmp_path / "rank.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^rank 4; the held-out error of rank 4, ", output, re.MULTILINE)
    components = re.findall(r"^component \d, cosine (\S+) over bootstraps: (.*)$", output, re.MULTILINE)
    assert len(components) == 4
    assert all(0.5 < float(cosine) <= 1 for cosine, _ in components)
    assert re.search(rf"{known} \d+\.\d ± \d+\.\d %", output)


def test_recommendations_of_planted_ratings(run: Run) -> None:
    output = run("recommender.py")
    assert "-> rank 5" in output  # 4 tastes, and one more for what all like
    assert_recommends(output)


def test_recommendations_of_ratings_in_a_file(tmp_path: Path, run: Run) -> None:
    example = runpy.run_path(str(EXAMPLES / "recommender.py"))
    known, test = example["planted"](600, 80)
    both = zip(known, test, strict=True)
    rows, columns, values = (np.concatenate(pair) for pair in list(both)[:3])
    np.savez(
        tmp_path / "ratings.npz", row=rows, col=columns, shape=known.shape,
        value_x100=np.round(values * 100 - 995).astype(np.int16),
        is_test=np.arange(len(rows)) >= len(known.rows),
    )  # fmt: skip
    assert_recommends(run("recommender.py", tmp_path / "ratings.npz"))


def test_topics_replace_those_of_an_earlier_run(
    tmp_path: Path, forks: Forks, run: Run, scheduler: str
) -> None:
    nmf(np.eye(3), 1, store=tmp_path / "topics.zarr")
    output = run("topics.py", str(tmp_path), "--documents", "4000", "--rank", "4", "--max-iter", "2")
    lines = output.splitlines()
    assert lines[0].endswith("3 GB if dense")
    assert lines[1].startswith("$ dask-nmf fit")
    assert any(line.startswith("4 topics explain ") for line in lines)
    shares = [float(share) for share in re.findall(r"^ *([\d.]+) %  \w+, \w+ ", output, re.MULTILINE)]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert "MB in the largest process" in lines[-1]
    commands = re.findall(r"^  \S+dask-nmf (.*)$", output, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["info", "transform", "fit"]
    for command in commands[:2]:
        assert forks.call(command.split(), tmp_path, DASK_SCHEDULER_ADDRESS=scheduler).returncode == 0


def test_the_gallery_has_every_example() -> None:
    page = (ROOT / "docs" / "gallery.md").read_text()
    assert set(re.findall(r"examples/(\w+\.py)", page)) == {path.name for path in EXAMPLES.glob("*.py")}


def test_the_data_comes_with_its_licence() -> None:
    notice = (EXAMPLES / "data" / "NOTICE").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in notice
    assert 'IS PROVIDED "AS IS"' in notice
    for file in (EXAMPLES / "data").glob("*.npz"):
        assert f"{file.name}\n\n" in notice
