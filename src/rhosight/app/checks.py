"""Check the arguments of a request before a worker receives them.

A wrong argument raises one sentence that names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..density.charge_density import STORED_KINDS
from ..density.electrons import UNITS
from ..errors import RhosightError
from .limits import MAX_INDEX, OFFSETS, WINDOWS

CERTAIN = "certainly total"
"""Kind of a file that holds the total density although its name or comment says otherwise."""

UPLOADED = (*STORED_KINDS, CERTAIN)
"""Kinds of density that a visitor can declare for a file."""

_MAX_SHOWN = 40


def check_plane(h: Any, k: Any, l: Any, offset: Any, window: Any) -> dict[str, Any]:  # noqa: E741
    """Return ``hkl``, ``offset`` and ``window`` of a slice as numbers.

    ``hkl`` is None if all indices are 0, which asks for the densest plane.

    Raises
    ------
    RhosightError
        If a value is not a number or out of range.
    """
    whole = f"a whole number from {-MAX_INDEX} to {MAX_INDEX}"
    for name, index in (("h", h), ("k", k), ("l", l)):
        if not _is_within(index, -MAX_INDEX, MAX_INDEX) or index != int(index):
            raise _make_error(name, whole, index)
    if not _is_within(offset, *OFFSETS):
        spacings = f"a number of interplanar spacings from {OFFSETS[0]:g} to {OFFSETS[1]:g}"
        raise _make_error("offset", spacings, offset)
    if not _is_within(window, *WINDOWS):
        raise _make_error("window", f"a side from {WINDOWS[0]:g} to {WINDOWS[1]:g} Å", window)
    hkl = [int(h), int(k), int(l)]
    return {"hkl": hkl if any(hkl) else None, "offset": float(offset), "window": float(window)}


def check_material_id(value: Any, known: Iterable[str]) -> str:
    """Return the id of a bundled material.

    Raises
    ------
    RhosightError
        If no bundled material has this id.
    """
    if not isinstance(value, str) or value not in known:
        expected = "the id of a bundled material, such as mp-149 (/materials lists them)"
        raise _make_error("material", expected, value)
    return value


def check_kind(value: Any, allowed: Iterable[str] = UPLOADED) -> str:
    """Return a kind of density.

    Raises
    ------
    RhosightError
        If it is not one of those allowed.
    """
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise _make_error("kind", f"{', '.join(allowed[:-1])} or {allowed[-1]}", value)
    return value


def check_unit(value: Any) -> str:
    """Return a unit of density, or an empty text for the one of the file's format.

    Raises
    ------
    RhosightError
        If it is neither.
    """
    if not isinstance(value, str) or value not in ("", *UNITS):
        expected = f"{', '.join(UNITS)}, or nothing for the unit of the format"
        raise _make_error("unit", expected, value)
    return value


def check_surface(value: Any) -> str:
    """Return the kind of density of an isosurface, or ``none``.

    Raises
    ------
    RhosightError
        If it is neither.
    """
    return check_kind(value, (*STORED_KINDS, "none"))


def _is_within(value: Any, low: float, high: float) -> bool:
    # a bool is an int in Python; NaN fails every comparison
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _make_error(name: str, expected: str, value: Any) -> RhosightError:
    given = "nothing" if value is None else repr(value)
    if len(given) > _MAX_SHOWN:
        given = f"{given[:_MAX_SHOWN]}…"
    return RhosightError(f"{name}: give {expected}, not {given}")
