"""Reports of runs as texts of HTML, and what these contain."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from dask_nmf.report import write

VOID = {"meta", "link"}


class Outline(HTMLParser):
    """Checks that all elements are closed in order, and collects what tests look at."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [found[name] or "" for name in ("href", "src") if name in found]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def report_of(run: Path, folder: Path, **options: Any) -> str:
    """Write the report of a run to a folder, and return it."""
    path = folder / "report.html"
    write(run, path, **options)
    return path.read_text("utf-8")
