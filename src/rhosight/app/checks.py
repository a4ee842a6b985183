"""What a request may ask for: each argument is checked before a worker gets it, and what is wrong
with it is one sentence that names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..density.charge_density import STORED_KINDS, StoredKind
from ..errors import RhosightError
from .limits import MAX_INDEX, OFFSETS, WINDOWS

UPLOADED: tuple[StoredKind, ...] = ("total", "difference")
"""What a density file can be said to hold."""

_LONGEST = 40


def plane(h: Any, k: Any, l: Any, offset: Any, window: Any) -> dict[str, Any]:  # noqa: E741
    """``hkl`` (None for all 0: the densest plane), ``offset`` and ``window`` of a slice.

    Raises
    ------
    RhosightError
        For what is no number, or beyond its range.
    """
    whole = f"a whole number from {-MAX_INDEX} to {MAX_INDEX}"
    for name, index in (("h", h), ("k", k), ("l", l)):
        if not _within(index, -MAX_INDEX, MAX_INDEX) or index != int(index):
            raise _refusal(name, whole, index)
    if not _within(offset, *OFFSETS):
        spacings = f"a number of interplanar spacings from {OFFSETS[0]:g} to {OFFSETS[1]:g}"
        raise _refusal("offset", spacings, offset)
    if not _within(window, *WINDOWS):
        raise _refusal("window", f"a side from {WINDOWS[0]:g} to {WINDOWS[1]:g} Å", window)
    hkl = [int(h), int(k), int(l)]
    return {"hkl": hkl if any(hkl) else None, "offset": float(offset), "window": float(window)}


def material_id(value: Any, known: Iterable[str]) -> str:
    """The id of a bundled material.

    Raises
    ------
    RhosightError
        If it is none.
    """
    if not isinstance(value, str) or value not in known:
        what = "the id of a bundled material, such as mp-149 (/materials lists them)"
        raise _refusal("material", what, value)
    return value


def kind(value: Any, allowed: Iterable[str] = UPLOADED) -> str:
    """A kind of density.

    Raises
    ------
    RhosightError
        If it is not one of those allowed.
    """
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise _refusal("kind", f"{', '.join(allowed[:-1])} or {allowed[-1]}", value)
    return value


def shown_kind(value: Any) -> str:
    """A kind of density, or ``none``."""
    return kind(value, (*STORED_KINDS, "none"))


def _within(value: Any, low: float, high: float) -> bool:
    # true is a number to Python, and NaN compares as false
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _refusal(name: str, what: str, value: Any) -> RhosightError:
    said = "nothing" if value is None else repr(value)
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]}…"
    return RhosightError(f"{name}: give {what}, not {said}")
