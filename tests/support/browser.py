"""A browser without a window, for pages that this project makes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, sync_playwright
from support.servers import PATIENCE

FLAGS = [  # the browser asks nothing of the network by itself
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Callable[..., Page]]:
    """Yield a function that opens a page, with options of its context, in a Chromium that has no window."""
    patience = 1000 * PATIENCE  # milliseconds
    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS, timeout=patience)

        def new_page(**options: Any) -> Page:
            context = browser.new_context(**options)
            context.set_default_timeout(patience)
            return context.new_page()

        yield new_page
        browser.close()
