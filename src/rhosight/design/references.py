"""Formation energies from GPAW: energies of the elements computed in the same way.

The reference of an element is a crystal of it in ``mp-elastic``, in the Materials Project's
geometry; that geometry is PBE's, and a volume that is off by 1 % changes the energy by about a meV.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pymatgen.core import Composition, Structure

from ..dataset.packing import load_dataset
from ..errors import RhosightError
from .calculations import Calculations, make_cell
from .wishes import FORMATION_ENERGY

LARGEST = 12
"""Atoms in the cell of a reference."""


@dataclass(frozen=True)
class Reference:
    """The reference crystal of an element.

    Attributes
    ----------
    material_id
        In the bundled dataset.
    structure
        Primitive standardised cell.
    formation_energy
        eV/atom; 0 for the most stable form.
    """

    material_id: str
    structure: Structure
    formation_energy: float


@cache
def list_references() -> dict[str, Reference]:
    """Return element → reference crystal, the most stable one with a small cell."""
    dataset = load_dataset("mp-elastic")
    table = dataset.table
    alone = table["formula"].str.fullmatch(r"[A-Z][a-z]?\d*") & (table["nsites"] <= LARGEST)
    rows = table[alone].dropna(subset=[FORMATION_ENERGY]).sort_values(FORMATION_ENERGY)
    references: dict[str, Reference] = {}
    for name, row in rows.iterrows():
        structure = dataset[str(name)].structure
        (element,) = {site.specie.symbol for site in structure}
        if element not in references:
            cell = make_cell(structure, str(name))
            references[element] = Reference(str(name), cell, float(row[FORMATION_ENERGY]))
    return references


def compute_element_energy(calculations: Calculations, symbol: str) -> float:
    """Return the energy per atom of an element's most stable form, eV.

    Raises
    ------
    RhosightError
        If the element has no reference crystal, or GPAW fails.
    """
    references = list_references()
    if symbol not in references:
        raise RhosightError(
            f"{symbol}: no reference crystal of this element is bundled, so formation energies of "
            f"its compounds cannot be computed; exclude it"
        )
    reference = references[symbol]
    name = f"elements/{symbol}-{reference.material_id}"
    energy = calculations.energy(name, reference.structure).energy
    return energy / len(reference.structure) - reference.formation_energy


def compute_formation_energy(
    calculations: Calculations, structure: Structure, energy: float
) -> float:
    """Return the formation energy of a crystal, eV/atom, from the total energy of its cell, eV."""
    composition: Composition = structure.composition
    elements = sum(
        amount * compute_element_energy(calculations, element.symbol)
        for element, amount in composition.items()
    )
    return (energy - elements) / composition.num_atoms
