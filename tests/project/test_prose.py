"""The language of the documents: sentences that a stranger understands, without words that say nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.docs import PAGES, ROOT

ALL_PAGES = [
    *PAGES,
    *(ROOT / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")),
]
SENTENCE = r"(?:^|[.!?:] |\*\* )"
RULES = {
    "a sentence begins with a word that leans on another": rf"{SENTENCE}(?:Of|Likewise|The same where)\b",
    "a paragraph begins with a clause in place of its subject": r"^What\b(?![^.]*\?)",
    "a word says nothing": (
        r"\b(?:very|really|simply|obviously|basically|actually|extremely|of course|needless to say|leverages?"
        r"|utilizes?|seamless(?:ly)?|blazing(?:ly)?|state[- ]of[- ]the[- ]art|powerful|just|for ever)\b"
    ),
    "a word stands twice": r"\b([a-z]{2,}) \1\b",
    "a sentence is about those who wrote it": r"\b(?:we|We|our team|TODO|FIXME)\b",
}


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs, items and cells of a page, each in one line, without code and formulae."""
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`|\$[^$]*\$", "`…`", text)
    parts = re.split(r"\n\s*\n|\n *(?:[*:]|\d+\.) |\n(?=[|#])", text)
    return [" ".join(part.split()) for part in parts]


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_rules_of_the_language_hold(page: Path) -> None:
    text = page.read_text()
    broken = [
        f"{rule}: …{part[max(found.start() - 30, 0) : found.end() + 30]}…"
        for part in paragraphs(text)
        for rule, pattern in RULES.items()
        for found in re.finditer(pattern, part)
    ]
    assert broken == []


@pytest.mark.parametrize(
    "text",
    [
        "It is so. Of two the first.",
        "What is left, goes.",
        "It is very fast.",
        "the the end",
        "Then we stop.",
    ],
)
def test_a_broken_rule_is_found(text: str) -> None:
    assert any(re.search(pattern, part) for part in paragraphs(text) for pattern in RULES.values())
