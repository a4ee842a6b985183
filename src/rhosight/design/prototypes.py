"""Structure types of known crystals, with elements as roles.

Crystals of one type have the same label (:func:`rhosight.inputs.descriptors.composition`) and fit
each other when their elements are replaced. The roles of a type are its sets of sites that one
element occupies. Two occupations may be the same crystal: rock salt with exchanged elements.

``python -m rhosight.design.prototypes OUT.json`` writes the types of the bundled datasets.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure

from ..density.crystals import MP_ANGLE_TOLERANCE, MP_SYMPREC, list_symbols
from ..density.elements import electronegativity
from ..density.structure_json import parse_structure_json
from ..errors import RhosightError
from ..inputs.descriptors.composition import prototype_label
from ..storage import bundled_file, replacing

FILE = "prototypes.json"

DATASETS = ("mp-fcc", "mp-elastic")
"""Bundled datasets with the crystals. Those of mp-mixed are in mp-elastic, too."""

MAX_ROLES = 5
"""Types of more elements are left out: a matching takes each order of the roles."""

MAX_ATOMS = 40
"""Largest primitive cell of a type."""

NAMES = {
    "225 A(m-3m) B(m-3m)": "rock salt",
    "216 A(-43m) B(-43m)": "zincblende",
    "221 A(m-3m) B(m-3m)": "caesium chloride",
    "225 A(m-3m) B2(-43m)": "fluorite",
    "225 A(m-3m) B(m-3m) C2(-43m)": "full Heusler",
    "216 A(-43m) B(-43m) C(-43m)": "half Heusler",
    "216 A(-43m) B(-43m) C2(-43m,-43m)": "inverse Heusler",
    "216 A(-43m) B(-43m) C(-43m) D(-43m)": "quaternary Heusler",
    "225 A(m-3m) B3(-43m,m-3m)": "BiF3",
    "225 A(m-3m) B(m-3m) C2(-43m) D6(4m.m)": "elpasolite",
    "227 A(-43m) B2(.-3m)": "cubic Laves",
    "227 A2(.-3m) B(-43m)": "cubic Laves",
    "221 A(m-3m) B(m-3m) C3(4/mm.m)": "cubic perovskite",
    "221 A(m-3m) B3(4/mm.m)": "Cu3Au",
    "225 A(m-3m)": "face-centred cubic",
    "229 A(m-3m)": "body-centred cubic",
    "194 A(-6m2)": "hexagonal close-packed",
    "227 A(-43m)": "diamond",
    "186 A(3m.) B(3m.)": "wurtzite",
    "123 A(4/mmm) B(4/mmm)": "CuAu",
    "191 A(6/mmm) B2(-6m2)": "AlB2",
    "139 A(4/mmm) B2(4mm)": "MoSi2",
    "139 A(4/mmm) B2(-4m2) C2(4mm)": "ThCr2Si2",
}
"""Names of common structure types."""


@dataclass(frozen=True)
class Example:
    """A known crystal of a type.

    Attributes
    ----------
    material_id
        Its name in its dataset, or its file.
    elements
        The element in each role.
    """

    material_id: str
    elements: tuple[str, ...]


@dataclass(frozen=True)
class Prototype:
    """A structure type.

    Attributes
    ----------
    label, name
        As :func:`rhosight.inputs.descriptors.composition.prototype_label` writes it, and for
        readers: a common name, or the first example.
    counts
        Atoms of each role in the primitive cell.
    equivalent
        Orders of the roles that leave the crystal the same, the identity first.
    is_rigid
        True if all examples have the same shape, so that a volume fixes the crystal.
    examples
        Known crystals, by id.
    """

    label: str
    name: str
    counts: tuple[int, ...]
    equivalent: tuple[tuple[int, ...], ...]
    is_rigid: bool
    examples: tuple[Example, ...]

    @property
    def number(self) -> int:
        """Return the number of the space group."""
        return int(self.label.split()[0])

    def canonical(self, elements: Sequence[str]) -> tuple[str, ...]:
        """Return the first of all occupations that are the same crystal as this one."""
        return min(tuple(elements[i] for i in order) for order in self.equivalent)

    def find_known(self, elements: Sequence[str]) -> str | None:
        """Return the id of the example that has these elements in these roles, or None."""
        form = self.canonical(elements)
        same = (e.material_id for e in self.examples if self.canonical(e.elements) == form)
        return next(same, None)

    def to_dict(self) -> dict[str, Any]:
        """Return the state for JSON."""
        return {
            "label": self.label,
            "name": self.name,
            "counts": self.counts,
            "equivalent": self.equivalent,
            "is_rigid": self.is_rigid,
            "examples": {e.material_id: " ".join(e.elements) for e in self.examples},
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Prototype:
        """Rebuild the type from the result of :meth:`to_dict`."""
        return cls(
            state["label"],
            state["name"],
            tuple(state["counts"]),
            tuple(tuple(order) for order in state["equivalent"]),
            state["is_rigid"],
            tuple(Example(k, tuple(v.split())) for k, v in state["examples"].items()),
        )


class Library:
    """Structure types and the crystals that they were found in.

    Parameters
    ----------
    prototypes
        The types.
    structures
        Id of each example → its structure as JSON or as pymatgen ``Structure``.
    """

    def __init__(self, prototypes: Sequence[Prototype], structures: dict[str, Any]):
        self.prototypes = tuple(prototypes)
        self._structures = structures
        self._templates: dict[tuple[str, int], Structure] = {}

    @property
    def names(self) -> set[str]:
        """Return the names of the crystals that have a type."""
        return set(self._structures)

    def join(self, other: Library) -> Library:
        """Return a library with the types of both."""
        return Library((*self.prototypes, *other.prototypes), self._structures | other._structures)

    def template(self, prototype: Prototype, number: int) -> Structure:
        """Return the primitive cell of an example, scaled to 1 Å³ per atom."""
        key = prototype.examples[number].material_id, number
        if key not in self._templates:
            cell = _primitive(self._read(key[0]))
            self._templates[key] = resize(cell, len(cell))
        return self._templates[key]

    def roles(self, prototype: Prototype, number: int) -> np.ndarray:
        """Return the role of each site of :meth:`template`."""
        elements = prototype.examples[number].elements
        return np.array([elements.index(s) for s in list_symbols(self.template(prototype, number))])

    def _read(self, material_id: str) -> Structure:
        content = self._structures[material_id]
        return (
            content
            if isinstance(content, Structure)
            else parse_structure_json(content, material_id)
        )


@cache
def load_library() -> Library:
    """Return the structure types of the bundled datasets."""
    with bundled_file(FILE) as path:
        states = json.loads(path.read_text(encoding="utf-8"))
    return Library([Prototype.from_dict(state) for state in states], read_structure_texts())


@cache
def read_structure_texts() -> dict[str, str]:
    """Return material id → structure as JSON of the bundled datasets."""
    from pyarrow import parquet

    texts: dict[str, str] = {}
    for name in reversed(DATASETS):  # of a crystal in several datasets the first counts
        with bundled_file(f"{name}.parquet") as path:
            table = parquet.read_table(path, columns=["material_id", "structure"]).to_pydict()
        texts |= dict(zip(table["material_id"], table["structure"], strict=True))
    return texts


def find_prototypes(structures: Mapping[str, Structure]) -> Library:
    """Sort crystals into structure types.

    Parameters
    ----------
    structures
        Name → crystal. Those with partial occupancies, more than :data:`MAX_ATOMS` atoms in the
        primitive cell or more than :data:`MAX_ROLES` elements are left out.
    """
    kinds: dict[str, list[_Kind]] = defaultdict(list)
    used: dict[str, Structure] = {}
    for name, structure in structures.items():
        try:
            label = prototype_label(structure)
            cell = _primitive(structure)
        except RhosightError:
            continue
        if len(cell) > MAX_ATOMS or len(cell.composition) > MAX_ROLES:
            continue
        used[name] = structure
        if not any(kind.add(name, cell) for kind in kinds[label]):
            kinds[label].append(_Kind(label, name, cell))
    prototypes = [kind.prototype() for group in kinds.values() for kind in group]
    prototypes.sort(key=lambda one: (-len(one.examples), one.label, one.name))
    return Library(prototypes, used)


class _Kind:
    """A structure type that is being collected."""

    def __init__(self, label: str, name: str, cell: Structure):
        amounts = cell.composition.get_el_amt_dict()
        elements = sorted(amounts, key=lambda e: (amounts[e], electronegativity(e), e))
        self.label, self.first = label, resize(cell, len(cell))
        self.counts = tuple(int(amounts[e]) for e in elements)
        self.reference = _mark(self.first, elements)
        orders = permutations(range(len(elements)))
        same = [o for o in orders if self._fits([elements[i] for i in o], self.first)]
        identity = tuple(range(len(elements)))
        self.equivalent = (identity, *(order for order in same if order != identity))
        self.examples = [Example(name, tuple(elements))]
        self.shapes = [_shape(self.first)]

    def add(self, name: str, cell: Structure) -> bool:
        """Add a crystal if it is of this type."""
        amounts = cell.composition.get_el_amt_dict()
        if sorted(amounts.values()) != sorted(self.counts):
            return False
        cell = resize(cell, len(cell))
        for elements in permutations(sorted(amounts)):
            if tuple(int(amounts[e]) for e in elements) == self.counts and self._fits(
                elements, cell
            ):
                self.examples.append(Example(name, min(self._same(elements))))
                self.shapes.append(_shape(cell))
                return True
        return False

    def _same(self, elements: Sequence[str]) -> list[tuple[str, ...]]:
        return [tuple(elements[i] for i in order) for order in self.equivalent]

    def _fits(self, elements: Sequence[str], cell: Structure) -> bool:
        amounts = cell.composition.get_el_amt_dict()
        if tuple(int(amounts[e]) for e in elements) != self.counts:
            return False
        return _matcher().fit(self.reference, _mark(cell, elements))

    def prototype(self) -> Prototype:
        """Return the finished type."""
        first = self.examples[0]
        shapes = np.array(self.shapes)
        formula = self.first.composition.reduced_formula
        return Prototype(
            self.label,
            NAMES.get(self.label, f"{formula} type ({self.label.split()[0]})"),
            self.counts,
            self.equivalent,
            bool(np.ptp(shapes, axis=0).max() < 2e-3),
            (first, *sorted(self.examples[1:], key=lambda example: example.material_id)),
        )


MARKS = ("H", "He", "Li", "Be", "B")


def _mark(cell: Structure, elements: Sequence[str]) -> Structure:
    """Return a cell with the element of each role replaced by a placeholder."""
    marks = dict(zip(elements, MARKS, strict=False))
    symbols = [marks[symbol] for symbol in list_symbols(cell)]
    return Structure(cell.lattice, symbols, cell.frac_coords)


def _shape(cell: Structure) -> np.ndarray:
    """Return sums over distances, which differ between cells of different shape."""
    distance = cell.get_neighbor_list(2.5)[3]
    return np.array([(distance**-power).sum() / len(cell) for power in (2, 4, 8)])


@cache
def _matcher() -> Any:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    # the cells are primitive already, and all of one volume per atom
    return StructureMatcher(primitive_cell=False, scale=False)


def resize(structure: Structure, volume: float) -> Structure:
    """Return a crystal with another volume of its cell, Å³."""
    resized = structure.copy()
    resized.scale_lattice(float(volume))
    return resized


def _primitive(structure: Structure) -> Structure:
    """Return the primitive cell, idealised by its symmetry."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = Structure(structure.lattice, list_symbols(structure), structure.frac_coords)
        try:
            analyser = SpacegroupAnalyzer(plain, MP_SYMPREC, MP_ANGLE_TOLERANCE)
            return analyser.get_primitive_standard_structure()
        except Exception as error:  # spglib's and pymatgen's errors have no common type
            formula = plain.composition.reduced_formula
            raise RhosightError(f"{formula}: spglib finds no primitive cell") from error


def main(arguments: Iterable[str]) -> None:
    """Write the structure types of the bundled datasets to a file."""
    (target,) = map(Path, arguments)
    texts = read_structure_texts()
    crystals = {name: parse_structure_json(texts[name], name) for name in sorted(texts)}
    library = find_prototypes(crystals)
    text = ",\n".join(json.dumps(p.to_dict()) for p in library.prototypes)
    with replacing(target) as draft:
        draft.write_text(f"[\n{text}\n]\n", encoding="utf-8")
    print(f"{len(library.prototypes)} structure types of {', '.join(DATASETS)}")


if __name__ == "__main__":
    main(sys.argv[1:])
