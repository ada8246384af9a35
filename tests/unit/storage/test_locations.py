"""What names a place: paths, and URLs that have nothing in them but the place."""

import subprocess
from pathlib import Path

import pytest
from support.command import Forks

from dask_nmf.storage.locations import locate
from dask_nmf.storage.objects.urls import split_url

SCHEMES = ["s3", "gs", "az", "https"]
MORE = [
    "me:hidden@bucket/v.zarr",
    ":hidden@bucket/v.zarr",
    "@bucket/v.zarr",
    "bucket/v.zarr?sig=hidden",
    "bucket/v.zarr?",
    "bucket/v.zarr#hidden",
    "bucket/v.zarr#",
    "bucket/v.zarr;token=hidden",
    "bucket/v.zarr;",
    "bucket/a;token=hidden/v.zarr",
    "bucket;token=hidden/v.zarr",
    "bucket/v.zarr;token=hidden?sig=hidden#hidden",
]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("more", MORE)
def test_a_url_with_more_than_a_place_in_it_is_refused_and_the_rest_is_not_shown(
    scheme: str, more: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{scheme}://bucket.*leave them out") as refused:
        locate(f"{scheme}://{more}")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["s3://me:hidden@bucket/v", "https://a.example/v?sig=hidden", "ftp://hidden/v"]
)
def test_a_secret_in_a_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"leave them out|no store that is known") as refused:
        locate(url)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("url", ["s3://bucket/v\n.zarr", "s3://bucket/\tv.zarr", "gs://bucket/v\x00.zarr"])
def test_a_url_with_what_cannot_be_seen_in_it_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="cannot be printed"):
        locate(url)


@pytest.mark.parametrize(
    "url", ["s3://bucket/a@b/v:1=2&3,4+5.zarr", "gs://bucket/a%3Bb%23c%3F", "az://c/ä b"]
)
def test_other_characters_are_those_of_keys(url: str) -> None:
    assert locate(url).name == url


def test_the_name_in_a_url_is_what_the_store_calls_it() -> None:
    assert split_url("s3://bucket/a%20b/c%3Bd%23") == ("s3://bucket/a%20b", "c;d#")


@pytest.mark.parametrize("more", ["?sig=hidden", "?", "#hidden", "#"])
def test_so_is_a_file_url(more: str) -> None:
    with pytest.raises(ValueError, match="leave them out") as refused:
        locate(f"file:///data/v.zarr{more}")
    assert "hidden" not in str(refused.value)


def test_a_file_of_another_host_is_no_path_of_this_one() -> None:
    with pytest.raises(ValueError, match=r"^file://there/data/v\.zarr is given with a host"):
        locate("file://there/data/v.zarr")
    for url in ("file:///data/v%231.zarr", "file://localhost/data/v%231.zarr"):
        assert locate(url).address == "/data/v#1.zarr"


@pytest.mark.parametrize(
    "words",
    [
        ("info", "s3://bucket/run.zarr#hidden"),
        ("fit", "s3://bucket/v.zarr;token=hidden", "--rank", "2", "--output", "run.zarr"),
        ("info", "file:///data/run.zarr?hidden"),
    ],
)
def test_the_command_says_so_in_a_line(words: tuple[str, ...], tmp_path: Path, forks: Forks) -> None:
    done: subprocess.CompletedProcess[str] = forks.call(words, tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "hidden" not in done.stderr
    assert list(tmp_path.iterdir()) == []
