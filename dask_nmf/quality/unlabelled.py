"""Factors of xarray, of any number of dimensions, made matrices again."""

from __future__ import annotations

from typing import Any


def w_matrix(W: Any) -> Any:
    """Return a W of xarray as (m, k), whose columns are its last dimension; any other W unchanged."""
    return W.data.reshape(-1, W.shape[-1]) if _has_dims(W) else W


def h_matrix(H: Any) -> Any:
    """Return an H of xarray as (k, n), whose rows are its first dimension; any other H unchanged."""
    return H.data.reshape(len(H), -1) if _has_dims(H) else H


def v_matrix(V: Any, columns: int) -> Any:
    """Return a V of xarray as (m, n), its dimensions in the order of W's rows and then of H's columns."""
    return V.data.reshape(-1, columns) if _has_dims(V) else V


def _has_dims(array: Any) -> bool:
    return len(getattr(array, "dims", ())) > 1
