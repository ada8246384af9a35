"""Type aliases that the whole package shares."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

Block = Any  # NDArray, scipy.sparse.csr_array or Cells
