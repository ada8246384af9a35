"""The page of a report: sections of text, figures and tables, and their rendering as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dask_nmf._version import __version__

CONTROL = {  # control characters, which HTML forbids, and the escapes that are shown for them
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"
}


@dataclass(frozen=True)
class Table:
    """A table of text, whose columns are set to the right, but for the first one and those of ``text``."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: Sequence[int] = ()


@dataclass(frozen=True)
class Figure:
    """A drawing with its title, the text that stands for it, and its numbers as a table.

    Attributes
    ----------
    kind : "chart", "heat" (0 is the colour of the paper) or "image" (pixels as they are)
    """

    title: str
    description: str
    svg: Markup
    table: Table | None = None
    kind: str = "chart"


@dataclass(frozen=True)
class Advice:
    """Something that a reader should know, in plain words, with what to do about it."""

    fact: str
    cure: str
    serious: bool = True


@dataclass(frozen=True)
class Card:
    """A component: its heading, one line of numbers, and a figure."""

    title: str
    text: str
    figure: Figure | None = None


@dataclass(frozen=True)
class Section:
    """A part of a report that the contents name."""

    anchor: str
    title: str
    paragraphs: Sequence[str] = ()
    advice: Sequence[Advice] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    cards: Sequence[Card] = ()
    small: bool = False  # whether cards are narrow
    folded: Sequence[Table] = ()  # tables that are shown when a reader opens them


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes
    ----------
    title : of the document
    lead : one sentence that says what the report is about
    facts : names and values of the few most important numbers
    """

    title: str
    lead: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    footer: str = field(default=f"Written by dask_nmf {__version__}.")


def render(page: Page) -> str:
    """Return a page as HTML that loads nothing; every text in it is escaped, and control characters too."""
    environment = Environment(
        loader=PackageLoader("dask_nmf.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup(environment.get_template("report.css").render())  # our own file
    return environment.get_template("report.html").render(page=page, style=style).translate(CONTROL)
