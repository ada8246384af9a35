"""Texts become the counts that scikit-learn's vectorizers give, whatever file they are in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from support.converted import matrix_of, names_of

from dask_nmf.errors import DataError
from dask_nmf.ingest import convert
from dask_nmf.ingest.formats.documents import counting, vocabulary

WORDS = np.array([*["the", "of", "and", "été", "naïve"], *(f"word{i}" for i in range(30))])
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, RNG.integers(0, 25))) + ".\nA, b!" for _ in range(40)]
IDS = [f"text {i}" for i in range(40)]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a few texts, and of a few words."""
    monkeypatch.setattr(counting, "TEXTS", 7)
    monkeypatch.setattr(vocabulary, "WORDS", 15)


def written(folder: Path, kind: str, texts: list[str] = TEXTS) -> dict[str, Any]:
    """Write texts to a file or files of a kind; return the arguments of `convert`."""
    frame = pd.DataFrame({"id": IDS[: len(texts)], "body": texts})
    fields = {"text": "body", "row": "id"}
    if kind == "txt":
        for name, text in zip(frame["id"], texts, strict=True):
            path = folder / "texts" / f"{int(name[5:]) % 2}" / f"{int(name[5:]):02}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return {"source": folder / "texts"}
    path = folder / f"texts.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "jsonl.gz":
        lines = "\n\n".join(json.dumps(record) for record in frame.to_dict("records"))
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ";", encoding="utf-16")
        fields["encoding"] = "utf-16"
    return {"source": path, **fields}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"body": ' + "[" * 10**5 + "]" * 10**5 + "}", "the record is nested too deeply to be read"),
        ('{"body": "one \\ud800 two"}', "field 'body' has '\\ud800', which is no character; leave it out"),
        ('{"body": "one", "id": "\\udfff"}', "field 'id' has '\\udfff', which is no character"),
    ],
    ids=["deep", "text", "name"],
)
def test_records_that_no_text_can_hold(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "v.jsonl").write_text(f'{{"body": "a b", "id": "x"}}\n{line}\n')
    with pytest.raises(DataError) as refused:
        convert(tmp_path / "v.jsonl", tmp_path / "v.zarr", text="body", row="id")
    assert f"v.jsonl, line 2: {words}" in str(refused.value)
    assert len(str(refused.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("kind", ["txt", "jsonl.gz", "csv", "tsv", "parquet"])
def test_counts_are_those_of_count_vectorizer(tmp_path: Path, kind: str) -> None:
    given = written(tmp_path, kind)
    steps = {"min_count": 4, "max_frequency": 0.9, "stop_words": "english", "ngrams": (1, 2)}
    convert(**given, destination=tmp_path / "v.zarr", **steps)
    vectorizer = CountVectorizer(min_df=4, max_df=0.9, stop_words="english", ngram_range=(1, 2))
    order = [*range(0, 40, 2), *range(1, 40, 2)] if kind == "txt" else range(40)
    expected = vectorizer.fit_transform([TEXTS[i] for i in order]).toarray()
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), expected)
    assert names_of(tmp_path / "v.zarr", "var") == list(vectorizer.get_feature_names_out())
    rows = [f"{i % 2}/{i:02}.txt" if kind == "txt" else IDS[i] for i in order]
    assert names_of(tmp_path / "v.zarr", "obs") == rows


def test_weights_of_new_texts_are_those_of_tfidf_vectorizer(tmp_path: Path) -> None:
    counts = CountVectorizer(ngram_range=(1, 2)).fit_transform(TEXTS[:30]).sum(0).A1
    top = int((counts > 9).sum())  # no count is equal at the limit
    steps = {"top_columns": top, "top_by": "sum", "tfidf": True, "ngrams": (1, 2), "dtype": "float64"}
    convert(**written(tmp_path, "parquet", TEXTS[:30]), destination=tmp_path / "v.zarr", **steps)
    vectorizer = TfidfVectorizer(max_features=top, ngram_range=(1, 2)).fit(TEXTS[:30])
    expected = vectorizer.transform(TEXTS).toarray()
    np.testing.assert_allclose(matrix_of(tmp_path / "v.zarr"), expected[:30], rtol=1e-12)
    new = written(tmp_path, "jsonl.gz")
    convert(**new, destination=tmp_path / "new.zarr", like=tmp_path / "v.zarr", dtype="float64")
    np.testing.assert_allclose(matrix_of(tmp_path / "new.zarr"), expected, rtol=1e-12)
    assert names_of(tmp_path / "new.zarr", "var") == list(vectorizer.get_feature_names_out())


def test_hashes_are_those_of_hashing_vectorizer(tmp_path: Path) -> None:
    convert(**written(tmp_path, "txt"), destination=tmp_path / "v.zarr", hash_columns=16)
    convert(**written(tmp_path, "parquet"), destination=tmp_path / "new.zarr", like=tmp_path / "v.zarr")
    hashing = HashingVectorizer(n_features=16, alternate_sign=False, norm=None)
    expected = hashing.transform(TEXTS).toarray()
    np.testing.assert_array_equal(matrix_of(tmp_path / "new.zarr"), expected)
    order = [*range(0, 40, 2), *range(1, 40, 2)]
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), expected[order])


def test_files_with_wildcards_and_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("café été".encode("latin-1"))
    (tmp_path / "b.txt").write_bytes(b"tea tea")
    convert(str(tmp_path / "*.txt"), tmp_path / "v.zarr", encoding="latin-1")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), [[1, 0, 1], [0, 2, 0]])
    assert names_of(tmp_path / "v.zarr", "obs") == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("name", "content", "given", "message"),
    [
        ("a.txt", b"one\ntw\xe9\n", {}, r"a\.txt, line 2: byte 0xe9 is not utf-8; .* --encoding latin-1"),
        ("a.csv", b"id,body\n1,\xff\n", {"text": "body"}, r"a\.csv, line 2: byte 0xff"),
        (
            "a.csv",
            b'id,body\n1,"a\nb"\n2\n',
            {"text": "body"},
            r"line 4: it has 1 field,",
        ),
        ("a.csv", b"id,body\n1,a\n", {"text": "bodi"}, r"has not one column 'bodi', and has id, body"),
        ("a.jsonl", b'{"body": "a"}\n\n{"body"}\n', {"text": "body"}, r"line 3: it is not JSON"),
        (
            "a.jsonl",
            b'{"title": "a"}\n',
            {"text": "body"},
            r"line 1: field 'body' is missing.*has title",
        ),
        ("a.jsonl", b'{"body": 3}\n', {"text": "body"}, r"line 1: field 'body' is int"),
        ("a.jsonl", b'{"body": "a"}\n', {"text": "body", "row": "id"}, r"line 1: field 'id' has no name"),
        ("a.jsonl", b'{"body": "a"}\n', {}, r"holds records; name the field with the text: text='body'"),
        ("a.txt", b"a b\n", {}, r"no word of 1 texts counts"),
        ("a.txt", b"tea\n", {"text": "body"}, r"leave it out for \.txt files"),
        ("a.txt", b"tea\n", {"encoding": "utf-88"}, r"encoding is 'utf-88'"),
        ("a.txt", b"tea\n", {"ngrams": (2, 1)}, r"ngrams is \(2, 1\)"),
        ("a.csv", b"a,b\n1,2\n", {"stop_words": "english"}, r"stop_words is for texts"),
        ("a.mtx", b"", {"text": "body"}, r"a\.mtx holds no texts"),
    ],
)
def test_what_is_no_text_is_refused(
    tmp_path: Path, name: str, content: bytes, given: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as refusal:
        convert(tmp_path / name, tmp_path / "v.zarr", **given)
    assert ("line" in message) <= isinstance(refusal.value, DataError)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_folders_and_files_are_joined_and_the_kind_of_most_files_is_taken(tmp_path: Path) -> None:
    for name, text in (("a/1.txt", "tea"), ("a/2.txt", "rice"), ("b/1.txt", "milk"), ("b/2.txt", "tea")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "a" / "labels.csv").write_text("file,kind\n1.txt,drink\n")
    convert([tmp_path / "a", tmp_path / "b/1.txt", tmp_path / "b/2.txt"], tmp_path / "v.zarr")
    assert names_of(tmp_path / "v.zarr", "obs") == ["a/1.txt", "a/2.txt", "b/1.txt", "b/2.txt"]
    assert names_of(tmp_path / "v.zarr", "var") == ["milk", "rice", "tea"]
