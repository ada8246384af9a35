"""The documentation site, built as ``make docs`` builds it."""

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.browser import chromium
from support.docs import ROOT
from support.servers import needs

pytestmark = pytest.mark.real

CLICKS = 3
WANTED = {  # places that a person must find within three clicks of the start page, and words of their pages
    "docs/choosing.html#choosing-the-rank": "answers three questions at once: which rank, is it stable",
    "docs/operations.html#a-job-every-night": "This is one line of a crontab",
    "docs/operations.html#new-rows-every-night": "dask-nmf update run.zarr new/",
    "docs/exit_codes.html#exit-codes": "75 there is no scheduler or no worker, a store does not answer",
    "docs/options.html#start": "init --init",
    "docs/log.html#pass": "number of the pass, from 1",
    "docs/run_format.html#record": "number of the format",
    "docs/inputs.html#converting-files": "dask-nmf convert",
    "docs/api/dask_nmf.nmf.html#dask_nmf.nmf": "Factorise a non-negative matrix V",
}

NARROW = 390  # pixels: a telephone
TOO_WIDE = """() => [...document.querySelectorAll("article *")].filter(one => {
    for (let above = one; above.tagName !== "ARTICLE"; above = above.parentElement)
        if (["auto", "scroll", "hidden"].includes(getComputedStyle(above).overflowX)) return false;
    return one.getBoundingClientRect().right > innerWidth + 1;
}).map(one => one.textContent.slice(0, 60))"""
NOT_DRAWN = "all => all.filter(one => !(one.complete && one.naturalWidth > 0)).map(one => one.src)"


class Links(HTMLParser):
    """What a page links to, what a browser loads with it, and its text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.loaded: set[str] = set()
        self.text = ""
        self.feed(page.read_text())

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a" and values.get("href"):
            self.targets.add(str(values["href"]))
        elif tag in ("img", "script", "iframe") and values.get("src"):
            self.loaded.add(str(values["src"]))
        elif tag == "link" and values.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.add(str(values["href"]))


def inside(site: Path, page: str) -> set[str]:
    """Return the pages of the site, with or without a place in them, to which a page links."""
    targets = {
        target if target[0] != "#" else Path(page).name + target for target in Links(site / page).targets
    }
    folder = site.resolve() / Path(page).parent
    return {
        (folder / target).resolve().relative_to(site.resolve()).as_posix()
        for target in targets
        if "://" not in target and target.partition("#")[0].endswith(".html")
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built of a copy, as a build writes pages among its sources; a warning fails."""
    folder = tmp_path_factory.mktemp("site")
    others = shutil.ignore_patterns(".*", "__pycache__", "_build", "api")
    source = shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / ROOT.name, ignore=others)
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-c", "docs", "-W", "--keep-going", "-q", ".", folder],
        cwd=source,
        check=True,
    )
    return folder


def test_what_people_look_for_is_three_clicks_away(site: Path) -> None:
    pages, seen = {"docs/index.html"}, set[str]()
    for _ in range(CLICKS):
        found = {target for page in pages for target in inside(site, page)}
        pages = {target.partition("#")[0] for target in found - seen}
        seen |= found
    assert {*WANTED} - seen == set()
    for target, words in WANTED.items():
        assert words in " ".join(Links(site / target.partition("#")[0]).text.split())


def test_links_inside_of_the_site_lead_somewhere(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if "_static" not in page.parts]
    for page in pages:
        links = Links(page)
        for target in links.targets | links.loaded:
            path = target.partition("#")[0].partition("?")[0]
            assert "://" in target or not path or (page.parent / path).exists(), f"{page}: {target}"


def test_pages_have_names_that_differ_by_more_than_capitals(site: Path) -> None:
    names = [page.relative_to(site).as_posix().lower() for page in site.rglob("*.html")]
    assert sorted({*names}) == sorted(names)


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list((site / "docs").glob("*.html"))
    assert len(pages) > 15
    for page in pages:
        assert not [source for source in Links(page).loaded if source.startswith(("http:", "https:", "//"))]


@needs("chromium")
def test_pages_fit_a_narrow_window_and_draw_their_pictures(site: Path) -> None:
    with chromium() as new_page:
        page = new_page(viewport={"width": NARROW, "height": 800})
        for path in sorted((site / "docs").rglob("*.html")):
            page.goto(path.as_uri())
            assert page.evaluate(TOO_WIDE) == [], f"{path}: wider than the window"
            assert page.locator("article img").evaluate_all(NOT_DRAWN) == [], path
