"""URLs of locations in object stores: recognise, check and split them."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

try:
    import obstore
except ImportError:  # the extra "cloud"
    obstore = None

SCHEMES = ("s3", "gs", "az", "http", "https")
READ_ONLY = ("http", "https")


def is_url(place: str) -> bool:
    """Return whether a text is a URL rather than a path."""
    return "://" in place


def check_url(url: str) -> None:
    """Refuse a URL that names no location in a store, or that carries anything else, such as a secret.

    A user, a password, a query, parameters and a fragment are refused, even if they are empty, because the
    URL is stored. A key whose name has such a character is given with that character escaped: ``%23`` for
    ``#``, ``%3B`` for ``;``.

    Raises
    ------
    ValueError
        If the scheme is unknown, the URL has such a part, or the extra "cloud" is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{parts.scheme}:// is no store that is known; give a path, or one of {known}")
    if "@" in parts.netloc or any(mark in url for mark in "?#;"):
        shown = (parts.netloc.rpartition("@")[2] + parts.path).partition(";")[0]
        raise ValueError(
            f"{parts.scheme}://{shown} is given with a user, a password, a query (?), parameters (;) or a "
            "fragment (#); leave them out, credentials are those of the environment"
        )
    if not url.isprintable():  # urlsplit drops line ends without a word
        raise ValueError(f"{url!r} has a character in it that cannot be printed; escape it, as %0A")
    if not parts.netloc or not parts.path.strip("/"):
        raise ValueError(f"{url} names no place in a store; give one such as s3://bucket/V.zarr")
    if obstore is None:
        raise ValueError(f"{url} is in an object store, which takes more: pip install 'dask_nmf[cloud]'")


def split_url(url: str) -> tuple[str, str]:
    """Split a URL into the URL of its folder and its name, which has no escapes, as in keys of objects."""
    folder, _, name = url.rstrip("/").rpartition("/")
    return folder, unquote(name)
