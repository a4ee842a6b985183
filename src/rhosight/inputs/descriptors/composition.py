"""Features of a crystal's composition and structure type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import gcd
from string import ascii_uppercase

import pandas as pd
from pymatgen.core import Structure

from ...density.crystals import MP_ANGLE_TOLERANCE, MP_SYMPREC, find_symmetry
from ...errors import RhosightError
from .element_data import compute_magpie, list_magpie_labels


def composition_features(structures: Sequence[Structure]) -> pd.DataFrame:
    """Compute Magpie statistics of the elements, volume, cell size and structure type.

    They are the same for the primitive cell, the conventional cell and supercells, in any order of
    the sites.

    Parameters
    ----------
    structures
        n ordered crystals. Oxidation states and magnetic moments on the sites are ignored.

    Returns
    -------
    pandas.DataFrame
        n rows and 135 columns: 132 of matminer under its names (``MagpieData mean
        Electronegativity`` …; Ward et al., npj Comput. Mater. 2, 16028 (2016),
        doi:10.1038/npjcompumats.2016.28), then

        - ``volume_per_atom``, Å³
        - ``nsites``, atoms of the primitive cell
        - ``prototype``, a string: see :func:`prototype_label`

    Raises
    ------
    RhosightError
        For a disordered crystal, or one whose symmetry spglib cannot find.
    """
    rows = []
    for structure in structures:
        label, nsites = _find_prototype(structure)
        # sorted elements, so that rounding does not depend on the order of the sites
        amounts = structure.composition.element_composition.reduced_composition.as_dict()
        values = compute_magpie(dict(sorted(amounts.items())))
        rows.append([*values, structure.volume / len(structure), nsites, label])
    columns = [*list_magpie_labels(), "volume_per_atom", "nsites", "prototype"]
    return pd.DataFrame(rows, columns=columns)


def prototype_label(structure: Structure) -> str:
    """Return the structure type: space group, then each element's share and its sites.

    Elements are anonymous (A, B …, the rarest first), and a site is named by its site symmetry,
    once for each orbit: fluorite is ``225 A(m-3m) B2(-43m)``, and antifluorite is the same.
    Wyckoff letters would distinguish a little more (β-cristobalite from the cubic Laves phase), but
    they depend on the choice of origin: zincblende is a and c, a and d, b and c … Site symmetries
    do not.
    """
    return _find_prototype(structure)[0]


def _find_prototype(structure: Structure) -> tuple[str, int]:
    """Return the structure type and the number of atoms in the primitive cell."""
    where = structure.composition.reduced_formula
    if not structure.is_ordered:
        raise RhosightError(f"{where}: partial occupancies; give an ordered structure")
    numbers = [site.specie.Z for site in structure]
    data = find_symmetry(structure, numbers, MP_SYMPREC, MP_ANGLE_TOLERANCE)
    if data is None:
        raise RhosightError(
            f"{where}: spglib finds no symmetry within {MP_SYMPREC} Å; check the structure for "
            "atoms closer than that"
        )
    orbits: dict[int, dict[int, str]] = defaultdict(dict)
    for number, orbit, symbol in zip(
        numbers, data.crystallographic_orbits, data.site_symmetry_symbols, strict=True
    ):
        # the order of an orthorhombic crystal's axes is arbitrary: mm2 and 2mm are the same
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
