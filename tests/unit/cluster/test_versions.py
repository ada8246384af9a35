"""The package that is sent to workers which lack it."""

from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import dask_nmf
from dask_nmf.cluster import versions


def test_the_package_that_is_sent_holds_every_file_of_every_wing() -> None:
    root = Path(dask_nmf.__file__).parent
    files = {path.relative_to(root.parent).as_posix(): path.read_bytes() for path in root.rglob("*.py")}
    with ZipFile(BytesIO(versions._zipped())) as package:
        assert {name: package.read(name) for name in package.namelist()} == files
