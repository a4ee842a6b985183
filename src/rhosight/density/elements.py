"""Properties of the elements that several modules read."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
from pymatgen.core import Element


@cache
def covalent_radius(symbol: str) -> float:
    """Return the covalent radius of an element, Å.

    Cordero et al., Dalton Trans. 2832 (2008), doi:10.1039/b801115j, low spin, from pymatgen.
    """
    return float(CovalentRadius.radius[symbol])


@cache
def electronegativity(symbol: str) -> float:
    """Return Pauling's electronegativity; 2.5 for noble gases without a value.

    From pymatgen.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(Element(symbol).X)
    return value if np.isfinite(value) else 2.5


def count_valence_electrons(element: Element) -> int:
    """Return the number of valence electrons that the group of an element implies.

    Behind a closed d or f shell only the s and p electrons count; lanthanides and actinides have 3.
    """
    if element.is_lanthanoid or element.is_actinoid:
        return 3
    group = element.group
    if group > 12:
        return group - 10
    if element.Z == 2:
        return 2
    return group - 10 if group > 10 else group
