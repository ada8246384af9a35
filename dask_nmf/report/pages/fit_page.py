"""The page of a fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dask_nmf.display.text import escape_control
from dask_nmf.report.facts.fit import FitFacts
from dask_nmf.report.facts.words import (
    about_changes,
    about_end,
    about_environment,
    about_matrix,
    about_model,
    duration,
    number,
    percent,
    source_of,
)
from dask_nmf.report.pages.page import Advice, Page, Section, Table
from dask_nmf.report.sections.advice import advice_for
from dask_nmf.report.sections.components import components_section, similarity_section
from dask_nmf.report.sections.failures import failures_section
from dask_nmf.report.sections.passes import passes_section
from dask_nmf.report.sections.rows import rows_section
from dask_nmf.report.sections.views import Look, choose_view
from dask_nmf.report.sections.work import work_section
from dask_nmf.wording import counted


def fit_page(facts: FitFacts, name: str, look: Look) -> Page:
    """Return the page of a fit in a run of this name."""
    m, n = facts.shape
    lead = (
        f"{counted(m, 'row', ',')} and {counted(n, 'column', ',')} in "
        f"{counted(facts.rank, 'component')}: {source_of(facts.record)}"
    )
    return Page(f"Report of {escape_control(name)}", lead, key_numbers(facts), fit_sections(facts, look))


def key_numbers(facts: FitFacts) -> list[tuple[str, str]]:
    """Return the most important numbers of a fit, with their names."""
    error, record = facts.relative_error, facts.record
    return [
        ("components", str(facts.rank)),
        ("relative error", "unknown" if error is None else f"{error:.5g}"),
        ("explained", "unknown" if error is None else percent(max(1 - error**2, 0.0), 4)),
        ("passes over V", number(record["pass"])),
        ("time of passes", duration(sum(record["history"]["seconds"]))),
        ("ended", record["outcome"] or "not yet"),
    ]


def fit_sections(facts: FitFacts, look: Look) -> list[Section]:
    """Return the sections about a fit."""
    view = choose_view(facts, look)
    nothing = Advice("Nothing is wrong with this fit as far as can be told.", "", False)
    advice = advice_for(facts, look) or [nothing]
    watched = facts.relative_error if facts.record["validation_error"] is not None else None
    return [
        _summary(facts),
        Section("advice", "Warnings and notes", advice=advice),
        components_section(facts, view, look.image_shape),
        similarity_section(facts),
        rows_section(facts),
        failures_section(facts, facts.residuals),
        passes_section(facts.record["history"], facts.record.get("expected"), watched),
        work_section(facts.record.get("work"), facts.record.get("expected")),
        _settings(facts),
    ]


def _summary(facts: FitFacts) -> Section:
    paragraphs = [
        about_matrix(facts.record),
        " ".join(about_model(facts.stored.settings)),
        about_end(facts.record, facts.relative_error, facts.squared),
        *about_changes(facts.record),
    ]
    held_out = facts.record["validation_error"]
    if held_out is not None:
        paragraphs.append(f"The root mean squared error of the held-out entries is {number(held_out, 5)}.")
    return Section("summary", "What was factorised, and how", paragraphs)


def _settings(facts: FitFacts) -> Section:
    rows = [*_flat(facts.record["settings"])]
    made_with = [about_environment(environment) for environment in facts.environments]
    return Section(
        "settings",
        "All settings",
        made_with,
        folded=[Table("settings of the fit", ["setting", "value"], rows)],
    )


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        yield name, "–" if value is None else escape_control(value)
