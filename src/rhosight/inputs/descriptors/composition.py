"""Features of a crystal's composition and structure type."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from math import gcd
from string import ascii_uppercase
from typing import Any

import pandas as pd
import spglib
from pymatgen.core import Composition, Structure

from ...errors import RhosightError

SYMPREC, ANGLE_TOLERANCE = 0.1, 5.0
"""Tolerances of the symmetry search, Å and degrees: the Materials Project's. Without the second,
spglib calls tetragonal what the Materials Project lists as cubic (In, mp-85)."""


def composition_features(structures: Sequence[Structure]) -> pd.DataFrame:
    """Magpie statistics of the elements, and the least one can say of the structure.

    Independent of the cell: primitive, conventional or a supercell, in any order of the sites.

    Parameters
    ----------
    structures
        n ordered crystals. Oxidation states and magnetic moments on the sites are ignored.

    Returns
    -------
    DataFrame of n rows and 135 columns: 132 of matminer, named as it names them
    (``MagpieData mean Electronegativity`` …; Ward et al., npj Comput. Mater. 2, 16028 (2016),
    doi:10.1038/npjcompumats.2016.28), then

    - ``volume_per_atom``, Å³
    - ``nsites``, atoms of the primitive cell
    - ``prototype``, a string: see :func:`prototype_label`

    Raises
    ------
    RhosightError
        For a disordered crystal, or one whose symmetry spglib cannot find.
    """
    featuriser = magpie()
    rows = []
    for structure in structures:
        label, nsites = _prototype(structure)
        # in one order of the elements, so that sums round alike however the cell is stored
        amounts = structure.composition.element_composition.reduced_composition.as_dict()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = featuriser.featurize(Composition(dict(sorted(amounts.items()))))
        rows.append([*values, structure.volume / len(structure), nsites, label])
    columns = [*featuriser.feature_labels(), "volume_per_atom", "nsites", "prototype"]
    return pd.DataFrame(rows, columns=columns)


def prototype_label(structure: Structure) -> str:
    """The structure type: space group, then each element's share and the sites that it occupies.

    Elements are anonymous (A, B …, the rarest first), and a site is named by its site symmetry,
    once for each orbit: fluorite is ``225 A(m-3m) B2(-43m)``, and antifluorite is the same.
    Wyckoff letters would tell a little more (they part β-cristobalite from the cubic Laves phase),
    but they depend on the choice of origin, hence on how the crystal was stored: zincblende is a
    and c, a and d, b and c … Site symmetries do not.
    """
    return _prototype(structure)[0]


@cache
def magpie() -> Any:
    """Matminer's featuriser; its import and its tables take about two seconds, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from matminer.featurizers.composition import ElementProperty

        return ElementProperty.from_preset("magpie", impute_nan=True)


def _prototype(structure: Structure) -> tuple[str, int]:
    """Prototype label and number of atoms in the primitive cell."""
    where = structure.composition.reduced_formula
    if not structure.is_ordered:
        raise RhosightError(f"{where}: partial occupancies; give an ordered structure")
    numbers = [site.specie.Z for site in structure]
    data = None
    with warnings.catch_warnings(), suppress(getattr(spglib, "SpglibError", RuntimeError)):
        warnings.simplefilter("ignore")
        cell = (structure.lattice.matrix, structure.frac_coords, numbers)
        data = spglib.get_symmetry_dataset(cell, SYMPREC, ANGLE_TOLERANCE)
    if data is None:  # in this way or by raising, depending on its version
        raise RhosightError(
            f"{where}: spglib finds no symmetry within {SYMPREC} Å; check the structure for atoms "
            "that coincide or lie closer than that"
        )
    orbits: dict[int, dict[int, str]] = defaultdict(dict)
    for number, orbit, symbol in zip(
        numbers, data.crystallographic_orbits, data.site_symmetry_symbols, strict=True
    ):
        # an orthorhombic crystal's axes have no order of their own: mm2 and 2mm are one
        symbol = "".join(sorted(symbol)) if 16 <= data.number <= 74 else symbol
        orbits[number][int(orbit)] = symbol
    unit = gcd(*(numbers.count(number) for number in orbits))
    elements = sorted(
        (numbers.count(number) // unit, sorted(symbols.values()))
        for number, symbols in orbits.items()
    )
    parts = [
        f"{letter}{count if count > 1 else ''}({','.join(symbols)})"
        for letter, (count, symbols) in zip(ascii_uppercase, elements, strict=False)
    ]
    return " ".join([str(data.number), *parts]), int(max(data.mapping_to_primitive)) + 1
