"""The configuration of the documentation site, which `make docs` builds from the root of the repository."""

import inspect
import re
from pathlib import Path
from shutil import rmtree
from typing import Any

from sphinx.application import Sphinx

from dask_nmf import __version__

project = "dask_nmf"
copyright = "the authors of dask_nmf"
version = release = __version__
root_doc = "docs/index"
include_patterns = [
    "docs/**", "cluster_configs/**/README.md", "benchmarks/README.md", "benchmarks/results/table.md",
    "CHANGELOG.md",
]  # fmt: skip
exclude_patterns = ["docs/_build", "docs/site", "docs/style", "docs/templates", ".venv*", "**/.*"]
extensions = [
    "myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx_copybutton",
    "sphinx_design",
]  # fmt: skip

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
default_role = "code"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_typehints = "none"  # numpydoc's sections say what parameters are
autosummary_filename_map = {  # some disks do not tell Plan.html from plan.html
    f"dask_nmf.{name}": f"dask_nmf.{name}-class"
    for name in ("NMF", "Plan", "updates.Update", "quality.Quality")
}
autosummary_context = {  # the members that the page of a class shows; those of others are in its attributes
    "shown_members": {
        "dask_nmf.NMF": [
            "fit", "fit_transform", "transform", "inverse_transform", "partial_fit", "load",
        ],
        "dask_nmf.NMFComponentsDisplay": ["from_estimator", "plot"],
        "dask_nmf.Result": [],
        "dask_nmf.RankSelection": [],
        "dask_nmf.Plan": ["to_dict"],
        "dask_nmf.Run": ["load", "load_result", "summary", "settings", "passes", "result"],
        "dask_nmf.runs.stored_result.StoredResult": ["factors", "row_names", "column_names", "read"],
        "dask_nmf.plots.accessors.FitPlots": [],
        "dask_nmf.plots.accessors.SelectionPlots": [],
        "dask_nmf.results.Comparison": ["mean_cosine", "as_json"],
        "dask_nmf.updates.Update": ["of_another_kind", "as_json"],
    }
}  # fmt: skip
templates_path = [str(Path(__file__).parent / "templates")]
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"

html_theme = "pydata_sphinx_theme"
html_title = "dask_nmf"
html_copy_source = False
html_extra_path = ["site"]  # an index.html that leads to docs/index.html
html_static_path = ["style"]
html_css_files = ["site.css"]
WITHOUT_CHILDREN = ("docs/start", "docs/gallery", "docs/coming_from")
html_sidebars = {page: [] for page in WITHOUT_CHILDREN}  # the list of pages below them would be empty
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "logo": {"text": "dask_nmf"},
}


TYPE = r"{.+}( or float)?|(int|float)(, .+)?"  # of a parameter, as scikit-learn writes it


def setup(app: Sphinx) -> None:
    """Let docstrings be mended before numpydoc reads them, and delete pages of names that are gone."""
    rmtree(Path(__file__).parent / "api", ignore_errors=True)  # autosummary writes them anew
    app.connect("autodoc-process-docstring", add_types, priority=100)


def add_types(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put types from annotations where numpydoc expects them, and the text on a line of its own.

    Docstrings have ``name : text`` in their sections of parameters and attributes. Some of the estimator have
    ``name : type`` with the text below it, as those of scikit-learn, and stay so.
    """
    types = {**inspect.get_annotations(obj)} if callable(obj) else {}
    if inspect.isclass(obj):
        types |= inspect.get_annotations(obj.__init__)
    mended, listed = [], False
    for line, below in zip(lines, [*lines[1:], ""], strict=bool(lines)):
        if below and set(below) == {"-"}:
            listed = line in ("Parameters", "Attributes")
        found = re.fullmatch(r"(\w[\w, ]*) : (.+)", line) if listed else None
        if found is None or (below.startswith("  ") and re.fullmatch(TYPE, found[2])):
            mended.append(line)
            continue
        known = {types.get(one) for one in found[1].split(", ")}
        kind = known.pop() if len(known) == 1 else None  # names of one line may have different types
        mended += [f"{found[1]} : {kind}" if isinstance(kind, str) else found[1], f"    {found[2]}"]
    lines[:] = mended
