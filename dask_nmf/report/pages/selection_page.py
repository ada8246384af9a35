"""The page of a selection of the rank: the ranks, the agreement of their models, and the recommended fit."""

from __future__ import annotations

from dask_nmf.display.text import escape_control
from dask_nmf.report.facts.fit import FitFacts
from dask_nmf.report.facts.words import number, source_of
from dask_nmf.report.pages.fit_page import fit_sections, key_numbers
from dask_nmf.report.pages.page import Page
from dask_nmf.report.sections.models.ranks import consensus_section, ranks_section
from dask_nmf.report.sections.views import Look
from dask_nmf.selection.result import RankSelection
from dask_nmf.wording import counted


def selection_page(selection: RankSelection, facts: FitFacts, name: str, look: Look) -> Page:
    """Return the page of a selection at a path or URL of this name, with its fit of the recommended rank."""
    ranks = [row["n_components"] for row in selection.ranks]
    m, n = facts.shape
    lead = (
        f"Which of the ranks {ranks[0]} to {ranks[-1]} fits {counted(m, 'row', ',')} and "
        f"{counted(n, 'column', ',')} best: "
        f"{source_of(facts.record)}"
    )
    numbers = [
        ("recommended rank", str(selection.n_components)),
        ("models compared", number(len(selection.models))),
        *key_numbers(facts)[1:],
    ]
    sections = [ranks_section(selection), consensus_section(selection), *fit_sections(facts, look)]
    return Page(f"Report of {escape_control(name)}", lead, numbers, sections)
