"""Formation energies from GPAW: energies of the elements computed in the same way.

The reference of an element is a crystal of it in the bundled datasets, in the Materials Project's
geometry; that geometry is PBE's, and a volume that is off by 1 % changes the energy by about a meV.
A form that is not the most stable one serves, too: its formation energy is taken off.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pymatgen.core import Composition, Structure

from ..dataset.packing import load_dataset
from ..dataset.sources.gpaw import Gpaw, find_gpaw
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
    dataset, material_id
        A bundled dataset, and the crystal in it.
    formation_energy
        eV/atom; 0 for the most stable form.
    energy
        Total energy, eV/atom, if the bundled dataset has it; None if it is to be computed.
    """

    dataset: str
    material_id: str
    formation_energy: float
    energy: float | None = None

    def make_cell(self) -> Structure:
        """Return the primitive standardised cell."""
        return _make_cell(self.dataset, self.material_id)


@cache  # each compound of the element asks
def _make_cell(dataset: str, material_id: str) -> Structure:
    return make_cell(load_dataset(dataset)[material_id].structure, material_id)


@cache
def list_references(with_energies: bool = True) -> dict[str, Reference]:
    """Return element → reference crystal.

    That of ``mp-fcc``, whose energy GPAW has computed with the default settings; else the most
    stable one with a small cell in ``mp-elastic``.

    Parameters
    ----------
    with_energies
        Use the energies of ``mp-fcc``, which are those of one version of GPAW.
    """
    references = _list_elements("mp-elastic")
    return references | _list_elements("mp-fcc") if with_energies else references


def _list_elements(name: str) -> dict[str, Reference]:
    table = load_dataset(name).table
    alone = table["formula"].str.fullmatch(r"[A-Z][a-z]?\d*") & (table["nsites"] <= LARGEST)
    rows = table[alone].dropna(subset=[FORMATION_ENERGY]).sort_values(FORMATION_ENERGY)
    references: dict[str, Reference] = {}
    for material_id, row in rows.iterrows():
        (element,) = Composition(str(row["formula"])).elements
        total = row.get("dft_energy")
        energy = None if total is None else float(total) / int(row["nsites"])
        reference = Reference(name, str(material_id), float(row[FORMATION_ENERGY]), energy)
        references.setdefault(element.symbol, reference)
    return references


def has_bundled_energies(gpaw: Gpaw) -> bool:
    """Return whether energies of ``mp-fcc`` fit these settings and this GPAW."""
    if gpaw.calculation() != Gpaw().calculation():
        return False
    return _is_version_of_bundled(gpaw.python)


@cache
def _is_version_of_bundled(python: str | None) -> bool:
    try:
        version = find_gpaw(python).version
    except RhosightError:  # without GPAW, nothing is computed that could differ
        return True
    return bool(version == load_dataset("mp-fcc").provenances[0]["version"])


def compute_element_energy(calculations: Calculations, symbol: str) -> float:
    """Return the energy per atom of an element's most stable form, eV.

    Raises
    ------
    RhosightError
        If the element has no reference crystal, or GPAW fails.
    """
    references = list_references(has_bundled_energies(calculations.gpaw))
    if symbol not in references:
        raise RhosightError(
            f"{symbol}: no reference crystal of this element is bundled, so formation energies of "
            f"its compounds cannot be computed; exclude it"
        )
    reference = references[symbol]
    energy = reference.energy
    if energy is None:
        name = f"elements/{symbol}-{reference.material_id}"
        cell = reference.make_cell()
        energy = calculations.energy(name, cell).energy / len(cell)
    return energy - reference.formation_energy


def compute_formation_energy(
    calculations: Calculations, structure: Structure, energy: float
) -> float:
    """Return the formation energy, eV/atom, from the total energy of a cell, eV."""
    composition: Composition = structure.composition
    elements = sum(
        amount * compute_element_energy(calculations, element.symbol)
        for element, amount in composition.items()
    )
    return (energy - elements) / composition.num_atoms
