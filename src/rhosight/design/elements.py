"""Similarity of elements: which element may take the role of another.

pymatgen's substitution probabilities (Hautier et al., Inorg. Chem. 50, 656 (2011),
doi:10.1021/ic102031h) are those of ions in ionic compounds. Most crystals here are intermetallic,
for which they have no data, so the distance is one of chemical properties.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

import numpy as np
from pymatgen.core import Element

from ..density.elements import covalent_radius, electronegativity
from ..errors import RhosightError

SCALES = {"electronegativity": 0.35, "radius": 0.18, "group": 2.5, "row": 1.5}
"""Differences that count as one: Pauling's scale, Å, columns and rows of the periodic table."""


@cache
def element_distance(one: str, other: str) -> float:
    """Return how unlike two elements are; 1 is a close relative, 3 another kind."""
    a, b = _describe(one), _describe(other)
    return float(np.sqrt(np.mean((a - b) ** 2)))


@cache
def _describe(symbol: str) -> np.ndarray:
    element = Element(symbol)
    # lanthanides and actinides stand in group 3
    values = {
        "electronegativity": electronegativity(symbol),
        "radius": covalent_radius(symbol),
        "group": element.group,
        "row": element.row,
    }
    return np.array([values[name] / scale for name, scale in SCALES.items()])


def distance_table(symbols: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Return :func:`element_distance` of all pairs, shape (symbols, others)."""
    return np.array([[element_distance(a, b) for b in others] for a in symbols])


def choose_elements(
    known: Collection[str], wanted: Sequence[str] = (), excluded: Sequence[str] = ()
) -> list[str]:
    """Return the elements that may occur, sorted.

    Parameters
    ----------
    known
        Elements that all models know.
    wanted
        The only elements that may occur; all known ones if empty.
    excluded
        Elements that may not occur.

    Raises
    ------
    RhosightError
        If a name is not that of an element, a wanted element is unknown to the models, or none
        is left.
    """
    for symbol in (*wanted, *excluded):
        if not Element.is_valid_symbol(symbol):
            raise RhosightError(f"{symbol!r} is not an element; write symbols such as Ti,Al")
    if unknown := sorted(set(wanted) - set(known)):
        raise RhosightError(
            f"element {unknown[0]}: no training crystal of the model contains it; leave it out, or "
            "train a model on crystals with it"
        )
    left = sorted((set(wanted) or set(known)) - set(excluded))
    if not left:
        raise RhosightError("no element is left; give more elements or exclude fewer")
    return left
