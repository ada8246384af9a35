"""Figures of Matplotlib as SVG inside of an HTML page, whose colours follow those of the page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import StringIO
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from dask_nmf.plots.drawing import matplotlib_part

INK = "#010203"  # stands for the colour of the text of the page
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dask_nmf",
    "text.parse_math": False,  # names may have a $
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.interpolation": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
} | dict.fromkeys(
    ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor"), INK
)
PAGE_COLOURS = {  # of figures, and what they are in the page
    INK: "currentColor",
    "#000000": "currentColor",
    "#595959": "var(--muted)",
    "#ffffff": "var(--paper)",
}
COLOUR = re.compile("|".join(PAGE_COLOURS))
LINK = re.compile(r"url\(#([^)]*)\)")
XLINK = "{http://www.w3.org/1999/xlink}href"
DPI = 72.0


@contextmanager
def report_style() -> Iterator[None]:
    """Draw in the style of a report, whatever Matplotlib is set to.

    Raises
    ------
    ValueError
        If Matplotlib is not installed.
    """
    with matplotlib_part("style").context(["default", SETTINGS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has other fonts
        yield


def new_figure(width: float, height: float) -> Any:
    """Return a figure of a size in inches, whose parts leave room for each other."""
    return matplotlib_part("figure").Figure(figsize=(width, height), layout="constrained")


def plain_figure(width: float, height: float) -> Any:
    """Return a figure of a size in inches, whose parts are placed by who draws them: that is much faster."""
    return matplotlib_part("figure").Figure(figsize=(width, height))


def inline_svg(figure: Any, title: str, description: str) -> Markup:
    """Return a figure as an SVG element with a title and a description for who cannot see it.

    Its identifiers are unique in a page in which each figure has its own title or content.
    """
    drawing = svg_text(figure)
    root = ElementTree.fromstring(drawing)
    prefix = f"f{sha256((title + description + drawing).encode()).hexdigest()[:10]}-"
    for parent in root.iter():
        for child in list(parent):
            if _local_name(child) in ("metadata", "style"):
                parent.remove(child)
    used = set(_links(root))
    for element in root.iter():
        element.tag = _local_name(element)
        element.attrib = dict(_attributes(element, prefix, used))
    names = _title_and_description(root, title, description, prefix)
    root.attrib |= {"role": "img", "aria-labelledby": " ".join(names)}
    return Markup(ElementTree.tostring(root, "unicode"))


def svg_text(figure: Any) -> str:
    """Return a figure as the text of an SVG file."""
    text = StringIO()
    figure.savefig(text, format="svg", dpi=DPI, metadata={"Date": None})
    return text.getvalue()


def _local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _links(root: ElementTree.Element) -> Iterator[str]:
    """Yield the identifiers that parts of a drawing refer to."""
    for element in root.iter():
        if element.get(XLINK, "").startswith("#"):
            yield element.attrib[XLINK][1:]
        for value in element.attrib.values():
            yield from LINK.findall(value)


def _attributes(element: ElementTree.Element, prefix: str, used: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the attributes of an element with the colours and identifiers of the page."""
    for name, value in element.attrib.items():
        if name == "id":
            if value in used:
                yield name, prefix + value
        elif name == XLINK:
            yield "href", f"#{prefix}{value[1:]}" if value.startswith("#") else value
        elif name != "version":
            linked = LINK.sub(rf"url(#{prefix}\1)", value)
            yield name, COLOUR.sub(lambda found: PAGE_COLOURS[found[0]], linked)


def _title_and_description(
    root: ElementTree.Element, title: str, description: str, prefix: str
) -> tuple[str, str]:
    """Put a title and a description before a drawing, and return their identifiers."""
    names = f"{prefix}title", f"{prefix}description"
    for place, (tag, name, text) in enumerate(
        zip(("title", "desc"), names, (title, description), strict=True)
    ):
        element = ElementTree.Element(tag, {"id": name})
        element.text = text
        root.insert(place, element)
    return names
