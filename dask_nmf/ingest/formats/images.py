"""Images of one size as rows of V: a column for each pixel and channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.files import FilePath, name_below, open_binary
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.reading import ReadProgress, optional_library
from dask_nmf.ingest.rows import BATCH, Batch, Columns, check_wanted, map_ahead
from dask_nmf.types import Array

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".pgm", ".ppm", ".bmp")
CURE = "save it anew, as PNG or TIFF"
OPAQUE = (255, 255)  # the least and the greatest value of an alpha channel that hides nothing
WITH_ALPHA = {"RGBA": "RGB", "LA": "L", "PA": "RGB"}  # modes of Pillow, and those without the alpha channel
PLAIN = ("1", "L", "I", "F", "RGB", "I;16", "I;16L", "I;16B")  # modes that are taken as they are


class ImageFiles(NamedTuple):
    """Files with images, and the folder below which their paths name the rows."""

    folder: FilePath
    paths: Sequence[FilePath]


class ImageRows:
    """Images in files, in order; each frame of a file with several is a row."""

    sparse = False

    def __init__(self, sources: Sequence[ImageFiles], options: ConvertOptions) -> None:
        self._pillow = optional_library("PIL.Image")
        self._sources = sources
        self._first = str(sources[0].paths[0]) if options.image_shape is None else "the images of V"
        first, _ = next(self._frames_of(sources[0].paths[0]))
        self.shape: tuple[int, ...] = options.image_shape or first.shape
        self._rules = options.rules(first.dtype)
        self.dtype = self._rules.dtype

    def columns(self) -> Columns:
        """Return the number of pixels times channels."""
        return Columns(int(np.prod(self.shape)))

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield images as rows; a position is a number of files and of frames of the next one.

        Raises
        ------
        DataError
            If a file is no image, or has another size or other channels than the first one.
        """
        progress = ReadProgress([path for source in self._sources for path in source.paths])
        rows: list[Array] = []
        names: list[str] = []
        done, frames = begin or (0, 0)
        files = [(source.folder, path) for source in self._sources for path in source.paths]
        for _, path in files[:done]:
            progress.file_done(path)
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        alone = map_ahead(self._only_frame, (path for _, path in files[done:]), lambda path: size)
        for number, ((folder, path), image) in enumerate(zip(files[done:], alone, strict=True), done):
            first = frames if number == done else 0
            found = self._frames_of(path, first) if image is None else [(image, "")][first:]
            for frame, (image, mark) in enumerate(found, first):
                rows.append(self._row(image, path))
                names.append(f"{name_below(path, folder)}{mark}")
                if len(rows) * rows[0].nbytes >= BATCH:
                    check_wanted()
                    yield Batch(np.stack(rows), names, (number, frame + 1))
                    rows, names = [], []
            progress.file_done(path)
        if rows:
            yield Batch(np.stack(rows), names, (len(files), 0))

    def _row(self, image: Array, path: FilePath) -> Array:
        """Return an image as a row; refuse another shape than that of the first one."""
        if image.shape != self.shape:
            raise DataError(
                f"{path} is of {_size(image.shape)}, and {self._first} of {_size(self.shape)}; "
                "bring all images to one size and to the same channels"
            )
        return self._rules.cast(image, lambda index: str(path)).ravel()

    def _only_frame(self, path: FilePath) -> Array | None:
        """Return the image in a file; None if there are several, which are read one by one."""
        with self._opened(path) as image:
            return None if getattr(image, "n_frames", 1) > 1 else _pixels(image, path)

    def _frames_of(self, path: FilePath, first: int = 0) -> Iterator[tuple[Array, str]]:
        """Yield the frames of a file from one on, each with what is added to the name of its row."""
        with self._opened(path) as image:
            number = getattr(image, "n_frames", 1)
            for frame in range(first, number):
                image.seek(frame)
                yield _pixels(image, path), f"[{frame}]" if number > 1 else ""

    @contextmanager
    def _opened(self, path: FilePath) -> Iterator[Any]:
        with readable(path, CURE), open_binary(path) as file:
            try:
                image = self._pillow.open(file)
            except self._pillow.UnidentifiedImageError:
                raise DataError(f"{path} cannot be read as an image; {CURE}") from None
            with image:
                yield image


def _pixels(image: Any, path: FilePath) -> Array:
    """Return the values of an image, (height, width) or (height, width, channels)."""
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in WITH_ALPHA:
        if image.getchannel("A").getextrema() != OPAQUE:
            raise DataError(f"{path} is transparent in places; save it without transparency")
        image = image.convert(WITH_ALPHA[image.mode])
    if image.mode not in PLAIN:
        raise DataError(f"{path} has the channels {image.mode}; save it as grey or RGB")
    pixels = np.asarray(image)
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


def _size(shape: Sequence[int]) -> str:
    """Return how a message calls the size of images."""
    channels = "grey" if len(shape) == 2 else "RGB"
    return f"{shape[1]} x {shape[0]} pixels, {channels}"
