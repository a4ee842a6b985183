"""Search by an evolutionary algorithm, for spaces that are too large to list.

An individual is a structure type, an element in each of its roles, and the known crystal of the
type whose shape it takes. Any element of the search may take any role that the filters of
:mod:`.space` allow, not only elements like those of known crystals. Each range is an objective: the
logarithm of the probability that its property lies in it. NSGA-II (Deb et al., IEEE Trans. Evol.
Comput. 6, 182 (2002), doi:10.1109/4235.996017) of pymoo (Blank and Deb, IEEE Access 8, 89497
(2020), doi:10.1109/ACCESS.2020.2990567) selects.

All random choices follow the seed. An interrupted search repeats them, and takes the predictions of
past generations from its ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import RhosightError
from .elements import distance_table
from .processes import BATCH, Predictor
from .prototypes import Prototype
from .screening import Screening
from .space import Candidate, Space

POPULATION = 2 * BATCH
"""Individuals of a generation."""

TRIES = 40
"""Random changes that are tried before an individual stays as it is."""

REACH = 1.0
"""Distance of elements at which a replacement is 1/e times as likely as by an identical one."""

MOVES = {"element": 0.55, "swap": 0.1, "type": 0.2, "shape": 0.15}
"""Shares of the kinds of mutations."""


def require_pymoo() -> None:
    """Raise if the optional package is not installed."""
    if find_spec("pymoo") is None:
        raise RhosightError("search nsga2 needs pymoo: pip install 'rhosight[design]'")


def evolve(screening: Screening, predictor: Predictor, candidates: int) -> list[Candidate]:
    """Try candidates in generations, and return all that were tried.

    Parameters
    ----------
    screening
        Measures how far predictions are from the ranges; its space is searched.
    predictor
        Predicts each generation.
    candidates
        Number of candidates. Fewer are tried if the space has no more.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem
    from pymoo.problems.static import StaticProblem

    variation = Variation(screening.space)
    tried: dict[str, Candidate] = {}
    algorithm = NSGA2(
        pop_size=min(POPULATION, candidates),
        seed=screening.space.seed,
        **_make_operators(variation, tried),
    )
    ranges = len(screening.ranges)
    problem = Problem(n_var=1, n_obj=ranges, vtype=object)
    algorithm.setup(problem, termination=("n_gen", candidates))  # one in each at least
    while len(tried) < candidates:
        individuals = algorithm.ask()
        if individuals is None or not len(individuals):
            break
        chosen: list[Candidate] = [one.X[0] for one in individuals]
        chosen = chosen[: candidates - len(tried)]
        tried |= {candidate.name: candidate for candidate in chosen}
        misses = screening.measure_misses(predictor.table(predictor.predict(chosen)))
        individuals = individuals[: len(chosen)]
        Evaluator().eval(StaticProblem(problem, F=misses), individuals)
        algorithm.tell(infills=individuals)
    return list(tried.values())


class Variation:
    """Draws and changes individuals.

    Parameters
    ----------
    space
        Its structure types, elements and filters.
    """

    def __init__(self, space: Space):
        self.space = space
        self.random = np.random.default_rng([space.seed, 1])
        types = space.prototypes or space.library.prototypes
        size = len(space.elements)
        self.types = [one for one in types if space.takes(one) and len(one.counts) <= size]
        self._likeness: dict[str, np.ndarray] = {}
        self._accepted: dict[tuple[str, tuple[str, ...]], bool] = {}

    def draw(self) -> Candidate | None:
        """Return a random individual that is like a known crystal, or None."""
        for _ in range(TRIES if self.types else 0):
            prototype = self._choose_type(self.types)
            number = int(self.random.integers(len(prototype.examples)))
            known = prototype.examples[number].elements
            if one := self._make(prototype, self._replace_all(known), number):
                return one
        return None

    def mutate(self, parent: Candidate) -> Candidate:
        """Return a changed individual, or the parent if no change passes the filters."""
        kinds, shares = list(MOVES), np.array(list(MOVES.values()))
        for _ in range(TRIES):
            kind = str(self.random.choice(kinds, p=shares / shares.sum()))
            prototype, example = parent.prototype, parent.example
            elements = list(parent.elements)
            if kind == "element":
                role = int(self.random.integers(len(elements)))
                elements[role] = self._choose_like(elements[role], elements)
            elif kind == "swap" and len(elements) > 1:
                one, other = self.random.choice(len(elements), 2, replace=False)
                elements[one], elements[other] = elements[other], elements[one]
            elif kind == "type":
                same = [one for one in self.types if len(one.counts) == len(elements)]
                prototype = self._choose_type(same)
                example = int(self.random.integers(len(prototype.examples)))
                elements = [elements[i] for i in self.random.permutation(len(elements))]
            elif kind == "shape" and not prototype.is_rigid:
                example = int(self.random.integers(len(prototype.examples)))
            child = self._make(prototype, elements, example)
            if child and child.name != parent.name:
                return child
        return parent

    def cross(self, one: Candidate, other: Candidate) -> Candidate:
        """Return an individual of one's type with elements of both, or ``one``."""
        for _ in range(TRIES):
            elements = list(one.elements)
            for role in range(len(elements)):
                if self.random.random() < 0.5:
                    taken = str(self.random.choice(other.elements))
                    if taken not in elements:
                        elements[role] = taken
            child = self._make(one.prototype, elements, one.example)
            if child and child.name not in (one.name, other.name):
                return child
        return one

    def _make(
        self, prototype: Prototype, elements: Sequence[str], example: int
    ) -> Candidate | None:
        """Return an individual, or None if it is not allowed."""
        if len(set(elements)) < len(elements):
            return None
        form = prototype.canonical(elements)
        key = prototype.label, form
        if key not in self._accepted:  # each occupation is counted once
            self._accepted[key] = self.space.accepts(prototype, form)
            self.space.counts.kept += self._accepted[key]
        if not self._accepted[key]:
            return None
        return Candidate(prototype, form, example, has_own_shape=True)

    def _choose_type(self, types: Sequence[Prototype]) -> Prototype:
        # common types are more often possible with other elements
        weights = np.sqrt([len(one.examples) for one in types])
        return types[int(self.random.choice(len(types), p=weights / weights.sum()))]

    def _replace_all(self, known: Sequence[str]) -> list[str]:
        elements: list[str] = []
        for symbol in known:
            elements.append(self._choose_like(symbol, elements))
        return elements

    def _choose_like(self, symbol: str, used: Sequence[str]) -> str:
        """Return an allowed element that is not used, more often one that is alike."""
        allowed = list(self.space.elements)
        if symbol not in self._likeness:
            self._likeness[symbol] = np.exp(-distance_table(allowed, [symbol])[:, 0] / REACH)
        weights = self._likeness[symbol] * ~np.isin(allowed, list(used))
        if not weights.any():
            return symbol
        return str(self.random.choice(allowed, p=weights / weights.sum()))


def _make_operators(variation: Variation, tried: dict[str, Candidate]) -> dict[str, Any]:
    """Return pymoo's operators, which call a variation and repeat nothing."""
    from pymoo.core.crossover import Crossover
    from pymoo.core.duplicate import DuplicateElimination
    from pymoo.core.mutation import Mutation
    from pymoo.core.sampling import Sampling

    class Draw(Sampling):
        def _do(self, problem: Any, n_samples: int, *_: Any, **__: Any) -> np.ndarray:
            drawn = (variation.draw() for _ in range(4 * n_samples))
            unique = {one.name: one for one in drawn if one}
            return _to_column(list(unique.values())[:n_samples])

    class Cross(Crossover):
        def __init__(self) -> None:
            super().__init__(2, 2, prob=0.5)

        def _do(self, problem: Any, X: Any, *_: Any, **__: Any) -> np.ndarray:
            pairs = list(zip(X[0, :, 0], X[1, :, 0], strict=True))
            first = [variation.cross(one, other) for one, other in pairs]
            second = [variation.cross(other, one) for one, other in pairs]
            return np.stack([_to_column(first), _to_column(second)])

    class Mutate(Mutation):
        def _do(self, problem: Any, X: Any, *_: Any, **__: Any) -> np.ndarray:
            return _to_column([variation.mutate(one) for one in X[:, 0]])

    class SkipTried(DuplicateElimination):
        def _do(self, pop: Any, other: Any, is_duplicate: np.ndarray) -> np.ndarray:
            seen = set(tried) | {one.X[0].name for one in (other if other is not None else ())}
            for number, one in enumerate(pop):
                name = one.X[0].name
                is_duplicate[number] = name in seen
                if other is None:
                    seen.add(name)
            return is_duplicate

    return {
        "sampling": Draw(),
        "crossover": Cross(),
        "mutation": Mutate(),
        "eliminate_duplicates": SkipTried(),
    }


def _to_column(candidates: Sequence[Candidate]) -> np.ndarray:
    """Return candidates as an array of shape (n, 1)."""
    column = np.empty((len(candidates), 1), dtype=object)
    column[:, 0] = list(candidates)
    return column
