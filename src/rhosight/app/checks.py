"""Check the arguments of a request before a worker receives them.

A wrong argument raises one sentence that names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..density.charge_density import STORED_KINDS
from ..density.electrons import UNITS
from ..design.wishes import read_wishes
from ..errors import RhosightError
from .limits import CANDIDATES, CELLS, MAX_INDEX, OFFSETS, PROPOSALS, WINDOWS

CERTAIN = "certainly total"
"""Kind of a file that holds the total density although its name or comment says otherwise."""

UPLOADED = (*STORED_KINDS, CERTAIN)
"""Kinds of density that a visitor can declare for a file."""

_MAX_SHOWN = 40
_MAX_WORD = 80

_MAX_WORDS = 120


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


def check_search(
    targets: Any,
    elements: Any,
    exclude: Any,
    candidates: Any,
    count: Any,
    max_atoms: Any,
    known: Any,
) -> dict[str, Any]:
    """Return the arguments of a search for crystals.

    Parameters
    ----------
    targets
        Texts such as ``bulk_modulus_vrh=200..250``, as list or separated by blanks.
    elements, exclude
        Symbols, as list or separated by commas or blanks.
    candidates, count, max_atoms
        As of :class:`rhosight.design.search.Search`.
    known
        Also propose crystals of the bundled datasets.

    Raises
    ------
    RhosightError
        If a value has another form or is out of range.
    """
    lists = {"targets": targets, "elements": elements, "exclude": exclude}
    checked: dict[str, Any] = {name: _split(name, value) for name, value in lists.items()}
    checked["targets"] = [str(wish) for wish in read_wishes(checked["targets"])]
    numbers = {"candidates": candidates, "count": count, "max_atoms": max_atoms}
    for (name, value), (low, high) in zip(
        numbers.items(), (CANDIDATES, PROPOSALS, CELLS), strict=True
    ):
        if not _is_within(value, low, high) or value != int(value):
            raise _make_error(name, f"a whole number from {low} to {high}", value)
        checked[name] = int(value)
    if not isinstance(known, bool):
        raise _make_error("known", "true or false", known)
    return {**checked, "include_known": known}


def _split(name: str, value: Any) -> list[str]:
    """Return the words of a list or of a text."""
    if value is None:
        return []
    words = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _make_error(name, "a list of texts", value)
    if len(words) > _MAX_WORDS:
        raise RhosightError(f"{name}: give at most {_MAX_WORDS}, not {len(words)}")
    for word in words:
        if len(word) > _MAX_WORD:
            raise RhosightError(f"{name}: {word[:_MAX_SHOWN]!r}… is too long")
    return words


def _is_within(value: Any, low: float, high: float) -> bool:
    # a bool is an int in Python; NaN fails every comparison
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _make_error(name: str, expected: str, value: Any) -> RhosightError:
    given = "nothing" if value is None else repr(value)
    if len(given) > _MAX_SHOWN:
        given = f"{given[:_MAX_SHOWN]}…"
    return RhosightError(f"{name}: give {expected}, not {given}")
