"""Reports in a real browser: nothing is asked of the network, all is drawn, and keys suffice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from support.browser import chromium
from support.named import write_named
from support.servers import needs

from dask_nmf import nmf, select_rank
from dask_nmf.report import write

HEIGHT, WIDTH, RANK = 6, 5, 3
pytestmark = needs("chromium")
NewPage = Callable[..., Page]
LIGHT, DARK = (255, 255, 255), (20, 23, 26)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of images, one of columns with names that look like markup, and one of a selection."""
    folder = tmp_path_factory.mktemp("browser")
    rng = np.random.default_rng(0)
    V = rng.gamma(0.5, size=(60, RANK)) @ rng.gamma(0.3, size=(RANK, HEIGHT * WIDTH)) + 0.01
    columns = [f'<script>alert("{j}")</script>' for j in range(V.shape[1])]
    source = write_named(folder / "V.zarr", V, [f"<b>row {i}</b>" for i in range(60)], columns)
    nmf(source, RANK, max_iter=3, store=folder / "run.zarr")
    select_rank(source, "2:3", n_init=2, holdout=0.2, max_iter=3, error_bars=2, store=folder / "select.zarr")
    found = {name: folder / f"{name}.html" for name in ("images", "names", "selection")}
    write(folder / "run.zarr", found["images"], image_shape=(HEIGHT, WIDTH))
    write(folder / "run.zarr", found["names"])
    write(folder / "select.zarr", found["selection"])
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[NewPage]:
    with chromium() as new_page:
        yield new_page


def opened(browser: NewPage, path: Path, events: list[str], scheme: str = "light") -> Page:
    """Return a page that shows a report; messages of the console and requests are added to ``events``."""
    page = browser(color_scheme=scheme, viewport={"width": 1200, "height": 900})
    page.on("console", lambda message: events.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("dialog", lambda dialog: events.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: events.append(request.url))
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("name", ["images", "names", "selection"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_asks_for_nothing_and_draws_all(
    browser: NewPage, reports: dict[str, Path], name: str, scheme: str
) -> None:
    events: list[str] = []
    page = opened(browser, reports[name], events, scheme)
    assert [event for event in events if not event.startswith("data:")] == [reports[name].as_uri()]
    figures = page.locator("figure svg")
    assert figures.count() >= 8
    for box in figures.evaluate_all("all => all.map(one => one.getBoundingClientRect().toJSON())"):
        assert box["width"] > 50
        assert box["height"] > 20
    broken = "all => all.map(one => one.getBBox()).filter(box => !(box.width > 0 && box.height > 0)).length"
    assert page.locator("figure svg > g").evaluate_all(broken) == 0
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == f"rgb{LIGHT if scheme == 'light' else DARK}"
    text = page.locator("figure svg text").first.evaluate("one => getComputedStyle(one).fill")
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert text == ink  # labels of figures can be read where the text can
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]})
    faults = [(fault["id"], fault["impact"]) for fault in found.response["violations"]]
    assert [fault for fault in faults if fault[1] in ("serious", "critical", "moderate")] == []
    page.context.close()


def test_names_from_data_stay_text(browser: NewPage, reports: dict[str, Path]) -> None:
    page = opened(browser, reports["names"], [])
    assert page.locator("script, main b").count() == 0
    ticks = page.locator("#components svg text").all_text_contents()
    assert any(text.startswith("<script>") for text in ticks)
    page.context.close()


def test_a_report_can_be_read_with_keys_alone(browser: NewPage, reports: dict[str, Path]) -> None:
    page = opened(browser, reports["names"], [])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0  # it is seen
    links = page.locator("nav a").count()
    for _ in range(links):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('nav') !== null")
    page.keyboard.press("Enter")
    page.wait_for_url("**#settings")
    summaries = page.locator("summary")
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        place = page.evaluate("[...document.querySelectorAll('summary')].indexOf(document.activeElement)")
        if place in reached:
            break
        reached |= {place} - {-1}
    assert len(reached) == summaries.count()
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.evaluate("one => one.open")
    assert page.locator("details table").first.is_visible()
    page.context.close()


def test_a_report_prints_on_a4(browser: NewPage, reports: dict[str, Path], tmp_path: Path) -> None:
    page = opened(browser, reports["images"], [], "dark")
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    content = (tmp_path / "report.pdf").read_bytes()
    assert b"/MediaBox [0 0 594.95996 841.91998]" in content or b"/MediaBox [0 0 595 842]" in content
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == f"rgb{LIGHT}"
    assert not page.locator("nav").is_visible()
    page.context.close()
