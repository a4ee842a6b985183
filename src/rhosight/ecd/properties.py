"""Properties of the elements that the density model reads."""

from __future__ import annotations

from functools import cache

import numpy as np
from pymatgen.core import Element

from ..density.elements import count_valence_electrons, covalent_radius, electronegativity
from ..density.free_atoms import list_elements, load_free_atoms

CONTRAST = 7
"""The first so many properties also weight the neighbours of a point."""


@cache
def element_properties() -> np.ndarray:
    """Return standardised properties of the elements of the free-atom table.

    Returns
    -------
    numpy.ndarray
        Shape (elements, properties), in the order of ``list_elements``: electronegativity, size of
        the free atom (root of its second moment), valence electrons, valence charge of the table,
        period, covalent radius, edge of the element's own volume; then d electrons, membership of
        the s, p and d blocks, and calculated atomic radius.
    """
    from ..inputs.descriptors.elements import own_volume

    table = load_free_atoms().atoms
    rows = []
    for symbol in list_elements():
        element, atom = Element(symbol), table[symbol]
        rows.append(
            [
                electronegativity(symbol),
                np.sqrt(atom.moment / atom.electrons),
                count_valence_electrons(element),
                atom.valence_charge,
                element.row,
                covalent_radius(symbol),
                np.cbrt(own_volume(symbol)),
                element.group if element.block == "d" and element.group <= 12 else 0,
                *(element.block == block for block in "spd"),
                float(element.atomic_radius_calculated or covalent_radius(symbol)),
            ]
        )
    values = np.array(rows, dtype=float)
    return (values - values.mean(axis=0)) / values.std(axis=0)
