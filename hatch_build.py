"""The long description of the package: README.md without links that only lead somewhere beside it."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = r"!\[[^\]]*\]\((?!https?://)[^)]*\)\n*"
LINK = r"\[([^\]]*)\]\((?!https?://)[^)]*\)"


class Description(MetadataHookInterface):
    """Gives the readme of the project, for an index page."""

    def update(self, metadata: dict[str, object]) -> None:
        """Put the text in, in the place of `readme`."""
        text = described((Path(self.root) / "README.md").read_text(encoding="utf-8"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def described(readme: str) -> str:
    """Return a readme without pictures of files beside it, and with the text alone of links to them.

    No public address of the files is known; an index page would lead such links to pages of its own.
    """
    return re.sub(LINK, r"\1", re.sub(PICTURE, "", readme))
