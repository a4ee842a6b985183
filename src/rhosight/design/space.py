"""The space of candidates: structure types occupied by similar elements.

A role of a structure type may be taken by elements that are like one which takes it in a known
crystal. Occupations pass cheap filters, the same crystal is listed once, and the candidates come in
an order that depends only on the settings: those closest to known crystals tend to come first, and
a seed mixes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from operator import attrgetter

import numpy as np
from pymatgen.core import Composition, Structure

from ..density.elements import covalent_radius, electronegativity
from .elements import distance_table, element_distance
from .prototypes import Library, Prototype

MAX_DISTANCE = 1.6
"""Largest distance of an element from the one that it replaces."""

MAX_PER_EXAMPLE = 1500
"""Largest number of occupations that one known crystal suggests: fewer elements per role where
there are many roles."""

RADIUS_MARGIN = 0.12
"""How far the ratio of a role's radius to the mean may lie outside of that of known crystals."""

POLARITY_MARGIN = 0.35
"""The same for the difference of electronegativity from the mean."""

CHUNK = 20_000


@dataclass(frozen=True)
class Candidate:
    """A crystal to be tried.

    Attributes
    ----------
    prototype
        Its structure type.
    elements
        The element in each role.
    example
        Number of the known crystal of the type whose elements are most similar.
    order
        Place in the list: small numbers are close to known crystals.
    has_own_shape
        True if the example was chosen for its shape and need not be the most similar one.
    """

    prototype: Prototype
    elements: tuple[str, ...]
    example: int
    order: float = 0.0
    has_own_shape: bool = False

    @property
    def composition(self) -> Composition:
        """Return the composition of the primitive cell."""
        amounts: dict[str, float] = {}
        for symbol, count in zip(self.elements, self.prototype.counts, strict=True):
            amounts[symbol] = amounts.get(symbol, 0) + count
        return Composition(amounts)

    @property
    def template(self) -> int:
        """Return the number of the known crystal whose shape it takes."""
        return 0 if self.prototype.is_rigid else self.example

    @property
    def formula(self) -> str:
        """Return the reduced formula."""
        return self.composition.reduced_formula

    @property
    def name(self) -> str:
        """Return a name that is unique among the candidates: formula, type, roles."""
        first = self.prototype.examples[0].material_id
        name = f"{self.formula}-{self.prototype.number}-{first}-{''.join(self.elements)}"
        if self.has_own_shape and not self.prototype.is_rigid:
            return f"{name}-{self.prototype.examples[self.example].material_id}"
        return name


@dataclass
class Counts:
    """Numbers of occupations that were listed, and why others were left out."""

    listed: int = 0
    known: int = 0
    radius: int = 0
    polarity: int = 0
    charge: int = 0
    kept: int = 0


@dataclass
class Space:
    """Candidates of a library of structure types.

    Parameters
    ----------
    library
        Structure types.
    elements
        Elements that may occur.
    prototypes
        The types to occupy; all of the library if empty.
    max_atoms
        Largest primitive cell.
    rigid
        Leave out types whose shape or positions symmetry does not fix.
    skip_known
        Leave out crystals that are examples of a type.
    seed
        Of the order.
    """

    library: Library
    elements: Sequence[str]
    prototypes: Sequence[Prototype] = ()
    max_atoms: int = 16
    rigid: bool = False
    skip_known: bool = True
    seed: int = 0
    counts: Counts = field(default_factory=Counts)

    def first(self, limit: int) -> list[Candidate]:
        """Return the first candidates of the space, at most ``limit``, in their order."""
        best: list[Candidate] = []
        self.counts = Counts()
        for number, prototype in enumerate(self.prototypes or self.library.prototypes):
            if not self.takes(prototype):
                continue
            # later ones than those that are there already are not even built
            bound = best[-1].order if len(best) >= limit else np.inf
            for candidates in self._occupy(number, prototype, bound):
                best = sorted([*best, *candidates], key=attrgetter("order"))[:limit]
        self.counts.kept = len(best)
        return best

    def takes(self, prototype: Prototype) -> bool:
        """Return whether a type is small, and rigid if it has to be."""
        small = sum(prototype.counts) <= self.max_atoms
        return small and (prototype.is_rigid or not self.rigid)

    def _occupy(self, number: int, prototype: Prototype, bound: float) -> Iterator[list[Candidate]]:
        """Yield the candidates of one type up to a place in the list, in parts."""
        elements = list(self.elements)
        known = [example.elements for example in prototype.examples]
        others = sorted({symbol for one in known for symbol in one})
        distance = distance_table(elements, others)
        index = np.array([[others.index(symbol) for symbol in one] for one in known])
        occupations = _list_occupations(distance, index)
        if not len(occupations):
            return
        occupations = _canonical(occupations, prototype)
        self.counts.listed += len(occupations)
        if self.skip_known:
            own = {prototype.canonical(one) for one in known}
            new = [tuple(elements[i] for i in row) not in own for row in occupations]
            self.counts.known += int(len(new) - sum(new))
            occupations = occupations[np.array(new, dtype=bool)]
        occupations = self._filter(occupations, prototype)
        generator = np.random.default_rng([self.seed, number])
        shares = np.array(prototype.counts) / sum(prototype.counts)
        for start in range(0, len(occupations), CHUNK):
            part = occupations[start : start + CHUNK]
            far = np.full(len(part), np.inf)
            nearest = np.zeros(len(part), dtype=int)
            for k, row in enumerate(index):
                own_distance = (distance[part, row] * shares).sum(axis=1)
                better = own_distance < far
                far[better], nearest[better] = own_distance[better], k
            order = (0.2 + far) * generator.uniform(0.3, 1.7, len(part))
            early = order < bound
            part, nearest, order = part[early], nearest[early], order[early]
            yield [
                Candidate(
                    prototype,
                    tuple(elements[i] for i in row),
                    int(example),
                    float(place),
                )
                for row, example, place in zip(part, nearest, order, strict=True)
                if self._is_neutral([elements[i] for i in row], prototype)
            ]

    def _filter(self, occupations: np.ndarray, prototype: Prototype) -> np.ndarray:
        """Drop occupations with radii or electronegativities unlike those of the type."""
        known = [example.elements for example in prototype.examples]
        shares = np.array(prototype.counts) / sum(prototype.counts)
        for name, function, margin in (
            ("radius", covalent_radius, RADIUS_MARGIN),
            ("polarity", electronegativity, POLARITY_MARGIN),
        ):
            if not len(occupations):
                break
            values = np.array([function(symbol) for symbol in self.elements])[occupations]
            there = np.array([[function(symbol) for symbol in one] for one in known])
            values, there = (
                v / (v @ shares)[:, None] if name == "radius" else v - (v @ shares)[:, None]
                for v in (values, there)
            )
            low, high = there.min(axis=0) - margin, there.max(axis=0) + margin
            passes = ((values >= low) & (values <= high)).all(axis=1)
            setattr(self.counts, name, getattr(self.counts, name) + int((~passes).sum()))
            occupations = occupations[passes]
        return occupations

    def _is_neutral(self, elements: Sequence[str], prototype: Prototype) -> bool:
        """Return False for an oxide or halide whose charges cannot add up to zero."""
        if not IONIC & set(elements):
            return True
        formula = dict(zip(elements, prototype.counts, strict=True))
        if balance_charges(Composition(formula)) is not None:
            return True
        self.counts.charge += 1
        return False

    def accepts(self, prototype: Prototype, elements: Sequence[str]) -> bool:
        """Tell whether an occupation by elements of the space passes all filters."""
        self.counts.listed += 1
        known = [example.elements for example in prototype.examples]
        if self.skip_known and prototype.canonical(elements) in map(prototype.canonical, known):
            self.counts.known += 1
            return False
        row = np.array([[self.elements.index(symbol) for symbol in elements]])
        return len(self._filter(row, prototype)) > 0 and self._is_neutral(elements, prototype)

    def build(self, candidate: Candidate, volume: float) -> Structure:
        """Return the primitive cell of a candidate with a volume per atom, Å³."""
        cell = self.library.template(candidate.prototype, candidate.template)
        roles = self.library.roles(candidate.prototype, candidate.template)
        symbols = [candidate.elements[role] for role in roles]
        structure = Structure(cell.lattice, symbols, cell.frac_coords)
        structure.scale_lattice(volume * len(cell))
        return structure


def find_nearest_example(prototype: Prototype, elements: Sequence[str]) -> int:
    """Return the number of the known crystal with the most similar elements."""
    shares = np.array(prototype.counts) / sum(prototype.counts)
    known = [example.elements for example in prototype.examples]
    far = [
        shares @ [element_distance(a, b) for a, b in zip(elements, one, strict=True)]
        for one in known
    ]
    return int(np.argmin(far))


IONIC = frozenset(("O", "F", "Cl", "Br", "I"))
"""Elements whose compounds have to be neutral by common oxidation states."""


def balance_charges(composition: Composition) -> dict[str, float] | None:
    """Return oxidation states by which a composition is neutral, or None.

    pymatgen's common oxidation states of the elements, one for each element.
    """
    reduced = composition.reduced_composition
    states = [_list_states(element.symbol) for element in reduced]
    amounts = [int(amount) for amount in reduced.values()]
    for charges in product(*states):
        if sum(q * n for q, n in zip(charges, amounts, strict=True)) == 0:
            return {e.symbol: float(q) for e, q in zip(reduced, charges, strict=True)}
    return None


def _list_states(symbol: str) -> tuple[int, ...]:
    from pymatgen.core import Element

    element = Element(symbol)
    return tuple(element.common_oxidation_states or element.oxidation_states) or (0,)


def _list_occupations(distance: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """Return occupations by elements like those of an example, (n, roles)."""
    roles = examples.shape[1]
    most = max(2, int(MAX_PER_EXAMPLE ** (1 / roles)))
    found: set[tuple[int, ...]] = set()
    for row in examples:
        near = []
        for other in row:
            closest = np.argsort(distance[:, other], kind="stable")[:most]
            near.append(closest[distance[closest, other] <= MAX_DISTANCE].tolist())
        found.update(one for one in product(*near) if len(set(one)) == roles)
    return np.array([list(one) for one in sorted(found)], dtype=int).reshape(-1, roles)


def _canonical(occupations: np.ndarray, prototype: Prototype) -> np.ndarray:
    """Return each crystal once, in the first of its equivalent occupations."""
    if len(prototype.equivalent) == 1:
        return occupations
    forms = np.stack([occupations[:, list(order)] for order in prototype.equivalent])
    best = forms[0]
    for other in forms[1:]:
        difference = other - best
        first = (difference != 0).argmax(axis=1)
        smaller = difference[np.arange(len(best)), first] < 0
        best = np.where(smaller[:, None], other, best)
    return np.unique(best, axis=0)
