"""The face of the package: its names, and the options of a fit, spelled out wherever they can be given."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import click
import numpy as np
import pytest

import dask_nmf
from dask_nmf import NMF, nmf, predict, recommend, transform
from dask_nmf.cli.app import app
from dask_nmf.cli.options import GroupedOption
from dask_nmf.options.option import option_of
from dask_nmf.options.settings import Settings

PUBLIC = ["Means", "NMF", "NMFComponentsDisplay", "Outcome", "Plan", "RankSelection", "Result", "Run"]
PUBLIC += ["nmf", "plan", "predict", "recommend", "select_rank", "transform"]
V = np.random.default_rng(0).random((30, 8))


def test_dir_lists_the_public_names_and_no_more() -> None:
    assert dir(dask_nmf) == PUBLIC
    assert {name: getattr(dask_nmf, name).__name__ for name in PUBLIC} == {name: name for name in PUBLIC}


def test_type_checkers_see_the_modules_that_names_are_imported_from() -> None:
    (block,) = (
        node for node in ast.parse(Path(dask_nmf.__file__).read_text()).body if isinstance(node, ast.If)
    )
    seen = {node.names[0].asname: node.module for node in block.body if isinstance(node, ast.ImportFrom)}
    assert seen == dask_nmf._MODULES
    assert {name: getattr(dask_nmf, name).__module__ for name in PUBLIC} == seen


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        "import sys, dask_nmf; dir(dask_nmf); print({'dask', 'numpy', 'zarr', 'sklearn'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_nmf_spells_out_every_setting_with_its_default_and_type() -> None:
    parameters = inspect.signature(nmf).parameters
    assert not [name for name, one in parameters.items() if one.kind is one.VAR_KEYWORD]
    hints, types = get_type_hints(nmf), get_type_hints(Settings)
    names = [field.name for field in fields(Settings)]
    assert [name for name in parameters if name in names] == names
    for field in fields(Settings)[1:]:  # n_components has no default
        assert parameters[field.name].default == field.default, field.name
        assert hints[field.name] == types[field.name], field.name
    explained = str(inspect.getdoc(nmf)).split("Returns")[0]
    assert [name for name in parameters if f"{name} :" not in explained and f"{name}," not in explained] == []


def test_the_estimator_has_the_types_of_the_settings() -> None:
    hints, types = get_type_hints(NMF.__init__), get_type_hints(Settings)
    ours = {field.name for field in fields(Settings)} - {"n_components", "random_state"}
    assert {name: hints[name] for name in ours} == {name: types[name] for name in ours}


def test_every_choice_of_a_setting_is_documented() -> None:
    described = [option_of(field) for field in fields(Settings)]
    common = {word for option in described for word in option.choices if option.solver is None}
    of_solvers = {word for option in described for word in option.choices if option.solver is not None}
    for documented, words in ((nmf, common | of_solvers), (NMF, common)):
        text = str(inspect.getdoc(documented))
        assert {word for word in words if f'"{word}"' not in text} == set()


def test_the_command_has_every_setting_with_its_default_choices_and_help() -> None:
    fit = app.commands["fit"]
    options = {option.name: option for option in fit.params}
    context = fit.make_context("fit", ["v.zarr", "--rank", "1", "--output", "run.zarr"])
    for field in fields(Settings)[1:]:
        described, option = option_of(field), options[field.name]
        assert context.params[field.name] == field.default, field.name
        assert isinstance(option, GroupedOption)
        assert (option.group, described.help in str(option.help)) == (described.group, True), field.name
        if described.need is None:
            assert isinstance(option.type, click.Choice)
            assert {*option.type.choices, *described.implied} == set(described.choices)


OTHER_KEYWORDS: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (nmf, {"V": V, "n_components": 3, "seed": 0}, "nmf() takes no seed; give random_state=0"),
    (nmf, {"V": V, "n_components": 3, "rng": np.random.RandomState(0)}, "give random_state=..."),
    (nmf, {"V": V, "rank": 3}, "give n_components=3"),
    (nmf, {"V": V, "k": 3}, "give n_components=3"),
    (
        nmf,
        {"V": V, "n_components": 3, "rank": 4},
        "it is n_components here, which is given too; leave rank out",
    ),
    (nmf, {"X": V, "n_components": 3}, "give V=..."),
    (nmf, {"V": V, "n_components": 3, "alpha": 0.1}, "give alpha_W=0.1"),
    (nmf, {"V": V, "n_components": 3, "n_iter": 9}, "give max_iter=9"),
    (nmf, {"V": V, "n_components": 3, "shuffle": True}, "takes no shuffle; leave it out"),
    (nmf, {"V": V, "n_components": 3, "validation_frac": 0.1}, "give validation_fraction=0.1"),
    (
        nmf,
        {"V": V, "n_components": 3, "qqqq": 1},
        "takes no qqqq; it takes V, n_components, solver, beta_loss",
    ),
    (NMF, {"rank": 3}, "NMF() takes no rank; give n_components=3"),
    (NMF, {"seed": 3}, "give random_state=3"),
    (transform, {"V": V, "H": V, "alpha": 1.0}, "transform() takes no alpha; give alpha_W=1.0"),
    (predict, {"W": V, "H": V.T, "row": [0], "columns": [0]}, "give rows=..."),
    (recommend, {"V": V, "W": V, "H": V.T, "n": 3}, "it takes V, W, H, count, missing"),
]


@pytest.mark.parametrize(("function", "given", "cure"), OTHER_KEYWORDS)
def test_a_keyword_of_others_is_refused_with_ours(
    function: Callable[..., Any], given: dict[str, Any], cure: str
) -> None:
    with pytest.raises(TypeError) as refusal:
        function(**given)
    assert cure in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "cure"),
    [
        ({"solver": "cd"}, "'cd' is called 'hals' here"),
        ({"solver": "HALS"}, "give 'hals'"),
        ({"beta_loss": "KL"}, "'kl' is called 'kullback-leibler' here"),
        ({"beta_loss": "kullback"}, "give 'kullback-leibler'"),
        ({"missing": np.nan}, "give 'nan'"),
        ({"init": "nndsvdb"}, "give 'nndsvd"),
    ],
)
def test_a_word_of_others_is_refused_with_ours(given: dict[str, Any], cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        nmf(V, 3, **given)


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("n_components", "an integer ≥ 1"),
        ("max_iter", "an integer"),
        ("random_state", "an integer"),
        ("tol", "a number ≥ 0"),
    ],
)
@pytest.mark.parametrize("value", [True, np.True_])
def test_a_truth_value_is_no_number(name: str, needed: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} is True; it must be {needed}"):
        nmf(V, **{"n_components": 3, name: value})
    with pytest.raises(ValueError, match="is True; it must be a"):
        NMF(**{name: value}).fit(V)


@pytest.mark.parametrize("names", ["W", "H", "WH"])
def test_factors_that_are_given_are_begun_with(names: str) -> None:
    start = {"W": V[:, :3], "H": V[:3]}
    given: dict[str, Any] = {name: start[name] for name in names}
    ours, theirs = nmf(V, 3, **given, max_iter=2), nmf(V, 3, **given, init="custom", max_iter=2)
    np.testing.assert_array_equal(ours.H, theirs.H)
    model = NMF(3, max_iter=2, tol=0).fit(V, **given)
    np.testing.assert_array_equal(model.components_, theirs.H)
    listed = " and ".join(names)
    with pytest.raises(ValueError, match=f"^{listed} (is|are) given to begin with, and init is 'random'"):
        nmf(V, 3, **given, init="random")


def test_a_result_is_two_factors_and_a_line() -> None:
    v = np.random.default_rng(0).random((30, 8))
    result = nmf(v, 2, max_iter=3)
    W, H = result
    assert W.shape == (30, 2)
    assert H.shape == (2, 8)
    line = repr(result)
    assert "\n" not in line
    assert len(line) < 300
    for part in ("30", "8", str(result.n_iter), result.message):
        assert part in line
    told = replace(result, message="<script>alert(1)</script>")
    assert "<script>" not in told._repr_html_()
    assert "&lt;script&gt;" in told._repr_html_()


NUMPY_OPTIONS = [
    {
        "max_iter": np.int8(2),
        "tol": np.float32(0.25),
        "random_state": np.uint32(3),
        "stop_below": np.float16(0.5),
    },
    {
        "solver": np.str_("mu"),
        "beta_loss": np.float32(1.5),
        "inner_iter": np.int64(2),
        "alpha_W": np.uint8(1),
    },
    {"solver": "mu", "delta": np.float32(0.25), "alpha_W": np.float64(0.25), "alpha_H": np.float16(0.5)},
    {"solver": "sgd", "batch_size": np.uint16(4), "learning_rate": np.float32(0.25), "l1_ratio": np.array(1)},
    {"missing": np.str_("nan"), "validation_fraction": np.float32(0.125), "init": np.str_("random")},
]


@pytest.mark.parametrize("options", NUMPY_OPTIONS)
def test_numpy_scalars_are_taken_as_the_numbers_that_they_are(
    options: dict[str, Any], tmp_path: Path
) -> None:
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in options.items()}
    begun = {"max_iter": 2} | options
    stored = nmf(V, np.int64(3), **begun, store=tmp_path / "run.zarr", cache=np.int64(1000))
    expected = nmf(V, 3, **({"max_iter": 2} | plain))
    np.testing.assert_array_equal(stored.H, expected.H)
    again = nmf(V, 3, **({"max_iter": 2} | plain), store=tmp_path / "run.zarr")  # it is the same fit
    np.testing.assert_array_equal(again.H, expected.H)


def test_numpy_scalars_are_parameters_of_the_estimator(tmp_path: Path) -> None:
    expected = NMF(3, random_state=3, max_iter=2, tol=0).fit(V)
    model = NMF(store=tmp_path / "run.zarr")
    model.set_params(
        n_components=np.int16(3), random_state=np.uint8(3), max_iter=np.int32(2), tol=np.float32(0)
    )
    np.testing.assert_array_equal(model.fit(V).components_, expected.components_)
    np.testing.assert_array_equal(NMF.load(tmp_path / "run.zarr").components_, expected.components_)
    batches = [
        NMF(3, random_state=seed, forget_factor=share)
        for seed, share in ((3, 0.5), (np.uint8(3), np.float32(0.5)))
    ]
    first, second = (model.partial_fit(V).partial_fit(V).components_ for model in batches)
    np.testing.assert_array_equal(first, second)
