"""Ids are numbered in the order in which they first appear, whatever they are and however they are cut."""

from __future__ import annotations

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_nmf.ingest.entries import ids as module
from dask_nmf.ingest.entries.ids import Ids
from dask_nmf.ingest.entries.texts import texts_of

texts = st.lists(st.text(max_size=20) | st.sampled_from(["a", "b", "a" * 8, "a" * 9, "a\0", "é" * 40]))


@given(texts, st.integers(1, 9))
def test_numbers_are_those_of_a_dictionary(listed: list[str], cut: int) -> None:
    expected = {text: number for number, text in enumerate(dict.fromkeys(listed))}
    column = pyarrow.array(listed, pyarrow.string())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLOTS", 2)
        ids = Ids()
    for first in range(0, len(listed), cut):
        part = column[first : first + cut]  # a view, whose first text is not the first of its buffer
        cut_texts, empty = texts_of(part)
        assert ids.encode(cut_texts).tolist() == [expected[text] for text in listed[first : first + cut]]
        assert empty == ("" in listed[first : first + cut])
    assert ids.texts() == list(expected)
    assert ids.texts(1, 3) == list(expected)[1:3]
    assert len(ids) == len(expected)


def test_texts_with_one_hash_have_numbers_of_their_own() -> None:
    given_texts, _ = texts_of(pyarrow.array(["tea", "rice", "tea", "salt", "teas"]))
    given_texts.hashes[:] = 7
    ids = Ids()
    for _ in range(2):
        assert ids.encode(given_texts).tolist() == [0, 1, 0, 2, 3]
    assert ids.texts() == ["tea", "rice", "salt", "teas"]


def test_too_many_ids_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    with pytest.raises(ValueError, match="more ids than can be numbered"):
        Ids().encode(texts_of(pyarrow.array(["tea", "rice", "salt"]))[0])
