"""Check volumes against those of relaxed crystals with the same elements."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from pymatgen.core import Composition, Structure

from .known import MAX_STRAIN, list_same_type, read_rows, read_volume

QUANTILE = 0.99
"""Share of the bundled crystals whose volume passes the check."""

MAX_LEVERAGE = 0.5
"""Bundled crystals that alone determine the volume of one of their elements say nothing about how
well volumes are predicted."""

_RIDGE = 1e-3


@dataclass(frozen=True)
class _Volumes:
    """Volumes of elements, Å³ per atom, and the limit of differences from their sum."""

    elements: dict[str, float]
    limit: float


def check_volume(structure: Structure) -> str | None:
    """Return why the volume of a crystal is not that of a relaxed one, or None.

    A crystal of the bundled datasets is compared with its own calculated volume. Others are
    compared with the sum of volumes of their elements, fitted to the bundled crystals; without
    these elements there is no statement.
    """
    volume = structure.volume / len(structure)
    same = {row["material_id"]: read_volume(row) for row in list_same_type(structure)}
    if same:
        name = min(same, key=lambda name: abs(np.log(volume / same[name])))
        if abs(volume / same[name] - 1) <= MAX_STRAIN:
            return None
        return _describe(volume, same[name], f"the calculated volume of {name}")
    volumes = _fit_volumes()
    amounts = structure.composition.fractional_composition.as_dict()
    if any(element not in volumes.elements for element in amounts):
        return None
    expected = sum(share * volumes.elements[element] for element, share in amounts.items())
    if abs(np.log(volume / expected)) <= volumes.limit:
        return None
    return _describe(volume, expected, "that of relaxed crystals of its elements")


def _describe(volume: float, expected: float, what: str) -> str:
    change = 100 * (volume / expected - 1)
    return (
        f"its volume of {volume:.1f} Å³ per atom is {abs(change):.0f} % "
        f"{'smaller' if change < 0 else 'larger'} than {what}: compressed, stretched or not relaxed"
    )


@cache
def _fit_volumes() -> _Volumes:
    """Fit ln V ≈ ln Σ x v to the bundled crystals, linearised about V: Σ x v / V ≈ 1."""
    rows = [row for group in read_rows().values() for row in group]
    shares = [Composition(row["formula"]).fractional_composition.as_dict() for row in rows]
    symbols = sorted({symbol for share in shares for symbol in share})
    volumes = np.array([read_volume(row) for row in rows])
    design = np.array([[share.get(symbol, 0.0) for symbol in symbols] for share in shares])
    design /= volumes[:, None]
    ridge = (_RIDGE / volumes.mean()) ** 2 * np.eye(len(symbols))
    inverse = np.linalg.inv(design.T @ design + ridge)
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    fitted = inverse @ design.sum(axis=0)
    left_out = np.abs(1 - design @ fitted) / np.maximum(1 - leverage, 1e-9)
    limit = np.quantile(left_out[leverage < MAX_LEVERAGE], QUANTILE)
    return _Volumes(dict(zip(symbols, fitted.tolist(), strict=True)), float(limit))
