"""Properties of the elements that several modules read."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
from pymatgen.core import Element


@cache
def covalent_radius(symbol: str) -> float:
    """Å; Cordero et al., Dalton Trans. 2832 (2008), doi:10.1039/b801115j, low spin, from
    pymatgen.
    """
    return float(CovalentRadius.radius[symbol])


@cache
def electronegativity(symbol: str) -> float:
    """Pauling's, from pymatgen; 2.5 for the noble gases that have none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(Element(symbol).X)
    return value if np.isfinite(value) else 2.5
