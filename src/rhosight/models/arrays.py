"""Checks of the arrays in a saved model: shapes, types and finiteness."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import RhosightError

LARGEST = 1e30
"""Numbers beyond it overflow when they are squared in single precision."""


def take_array(
    arrays: Mapping[str, np.ndarray],
    name: str,
    shape: tuple[int | None, ...],
    integers: bool = False,
    missing: bool = False,
) -> np.ndarray:
    """Return an array of a saved model after checking it.

    Parameters
    ----------
    arrays
        Name → array.
    name
        Of the array.
    shape
        Its shape; None for any length.
    integers
        Whether it holds integers, not floats.
    missing
        Whether NaN stands for a missing value.

    Raises
    ------
    RhosightError
        If there is no such array, or it has another shape or type, or values that are not finite.
    """
    if name not in arrays:
        raise RhosightError(f"no array {name!r}")
    array = arrays[name]
    expected = tuple(
        own if wanted is None else wanted for own, wanted in zip(array.shape, shape, strict=False)
    )
    if array.ndim != len(shape) or array.shape != expected:
        wanted = "×".join("n" if length is None else str(length) for length in shape)
        raise RhosightError(f"array {name!r} has shape {array.shape}, expected {wanted}")
    types = ("int64", "int32") if integers else ("float64", "float32")
    if array.dtype.name not in types:
        raise RhosightError(f"array {name!r} is {array.dtype.name}, expected {types[0]}")
    if not integers:
        known = array[~np.isnan(array)] if missing else array
        if not np.isfinite(known).all() or np.abs(known).max(initial=0) > LARGEST:
            raise RhosightError(f"array {name!r} contains values that are not finite")
    return array
