"""The protocol of a selection of ranks, as figures need it."""

from __future__ import annotations

from typing import Any, Protocol

from dask_nmf.types import Array


class Selection(Protocol):
    """A choice of the rank: `RankSelection` is one, and describes the attributes."""

    @property
    def n_components(self) -> int: ...

    @property
    def reason(self) -> str: ...

    @property
    def ranks(self) -> list[dict[str, Any]]: ...

    @property
    def models(self) -> list[dict[str, Any]]: ...

    @property
    def clusters(self) -> Array: ...

    @property
    def beta_loss(self) -> float: ...
