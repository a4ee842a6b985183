"""Energies above the convex hull of the Materials Project's compounds, offline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from pymatgen.core import Composition

from ..storage import bundled_file

FILE = "mp-hull.parquet"

STABLE = 1e-3
"""Distance from the hull, eV/atom, up to which an entry counts as stable."""


@dataclass(frozen=True)
class HullPoint:
    """The convex hull at a composition.

    Attributes
    ----------
    energy
        Formation energy of the competing phases, eV/atom; at most 0.
    phases
        Formulas of these phases.
    """

    energy: float
    phases: tuple[str, ...]


@lru_cache(maxsize=4096)
def find_hull(formula: str) -> HullPoint:
    """Return the convex hull of known compounds at the composition of a formula.

    The hull is that of the bundled list: stable entries of the Materials Project as far as they are
    known, and the labels of the bundled datasets; elements at zero. A missing phase makes a
    candidate look more stable than it is.
    """
    composition = Composition(formula)
    diagram = _diagram(frozenset(element.symbol for element in composition))
    decomposition = diagram.get_decomposition(composition)
    energy = sum(entry.energy_per_atom * share for entry, share in decomposition.items())
    phases = sorted(entry.composition.reduced_formula for entry in decomposition)
    return HullPoint(float(energy), tuple(phases))


def find_stable_entry(formula: str) -> str | None:
    """Return the id of the stable entry of a reduced formula, or None."""
    table = _read()
    if formula not in table.ids or table.energies[formula] > find_hull(formula).energy + STABLE:
        return None
    return table.ids[formula]


@dataclass(frozen=True)
class _Table:
    ids: dict[str, str]
    energies: dict[str, float]
    systems: dict[frozenset[str], list[tuple[str, float]]]


@cache
def _read() -> _Table:
    from pyarrow import parquet

    with bundled_file(FILE) as path:
        table = parquet.read_table(path).to_pydict()
    systems = defaultdict(list)
    for formula, elements, energy in zip(
        table["formula"], table["elements"], table["formation_energy_per_atom"], strict=True
    ):
        systems[frozenset(elements.split("-"))].append((formula, energy))
    ids = {
        formula: f"mp-{number}"
        for formula, number in zip(table["formula"], table["number"], strict=True)
    }
    energies = dict(zip(table["formula"], table["formation_energy_per_atom"], strict=True))
    return _Table(ids, energies, dict(systems))


@lru_cache(maxsize=2048)
def _diagram(elements: Collection[str]) -> Any:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

    entries = [PDEntry(Composition(symbol), 0.0) for symbol in sorted(elements)]
    systems = _read().systems
    for subset in _subsets(sorted(elements)):
        for formula, energy in systems.get(subset, ()):
            composition = Composition(formula)
            entries.append(PDEntry(composition, energy * composition.num_atoms))
    return PhaseDiagram(entries)


def _subsets(elements: list[str]) -> list[frozenset[str]]:
    sets: list[frozenset[str]] = [frozenset()]
    for element in elements:
        sets += [one | {element} for one in sets]
    return sets[1:]
