"""Expected error of a predicted density, and whether its crystal is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from pymatgen.core import Structure

from ..density.crystals import list_symbols
from ..errors import RhosightError
from ..inputs.descriptors.composition import prototype_label
from ..models.uncertainty import conformal_quantile

LEVEL = 0.9
"""Share of crystals whose error stays below the bound."""


def count_elements(structures: Sequence[Structure]) -> dict[str, int]:
    """Return the number of crystals that contain each element."""
    return dict(Counter(symbol for one in structures for symbol in set(list_symbols(one))))


def compute_rarity(structure: Structure, counts: Mapping[str, int]) -> float:
    """Return the mean over atoms of 1 / (1 + training crystals with their element)."""
    return float(np.mean([1 / (1 + counts.get(symbol, 0)) for symbol in list_symbols(structure)]))


@dataclass(frozen=True)
class Reliability:
    """Out-of-fold errors of crystals as a function of what is known about a new one.

    The expected error is exp(c₀ + c₁ log size + c₂ rarity), by least squares over the training
    crystals, each predicted by a network that had not seen it. ``size`` is ∫|Δρ̂| / ∫ρ̂. The bound
    is this times a conformal quantile over crystals, so that it holds for new crystals like these.
    Crystals of a new structure type have other factors, from networks that had not seen their type.

    Attributes
    ----------
    coefficients
        c₀, c₁ and c₂.
    factor
        Bound over expected error.
    elements
        Symbol → number of training crystals with this element.
    prototypes
        Structure types of the training crystals, sorted.
    new_type
        Factors for a new structure type, of the expected error and of its bound. Infinite if the
        training crystals had too few types to tell.
    """

    coefficients: tuple[float, float, float]
    factor: float
    elements: dict[str, int]
    prototypes: tuple[str, ...]
    new_type: tuple[float, float] = (math.inf, math.inf)

    @classmethod
    def fit(
        cls,
        errors: np.ndarray,
        sizes: np.ndarray,
        rarities: np.ndarray,
        structures: Sequence[Structure],
    ) -> Self:
        """Calibrate on crystals the networks had not seen; arrays of shape (crystals,)."""
        design = np.stack([np.ones(len(errors)), np.log(sizes), rarities], axis=1)
        solution = np.linalg.lstsq(design, np.log(errors), rcond=None)[0]
        first, second, third = (float(value) for value in solution)
        return cls(
            coefficients=(first, second, third),
            factor=conformal_quantile(errors / np.exp(design @ solution), LEVEL),
            elements=count_elements(structures),
            prototypes=tuple(sorted({prototype_label(structure) for structure in structures})),
        )

    def calibrate_new_types(
        self,
        errors: np.ndarray,
        sizes: np.ndarray,
        rarities: np.ndarray,
        types: Sequence[str],
    ) -> Self:
        """Return the same with factors for new structure types.

        Each structure type has the same weight, however many crystals it has, because a new crystal
        brings a new type: a conformal quantile over types whose distributions are pooled (Dunn et
        al., arXiv:1809.07441).

        Parameters
        ----------
        errors, sizes, rarities
            Of crystals, by networks that had not seen their structure types, shape (crystals,).
        types
            Their structure types.
        """
        ratios = errors / self._estimate(sizes, rarities)
        counts = Counter(types)
        weights = np.array([1 / counts[one] for one in types])
        mean = float(np.exp(np.average(np.log(ratios), weights=weights)))
        order = np.argsort(ratios)
        # the new type is one more, and its ratio may be infinite
        reached = np.cumsum(weights[order]) / (len(counts) + 1)
        within = np.flatnonzero(reached >= LEVEL - 1e-9)
        bound = float(ratios[order[within[0]]]) if len(within) else math.inf
        return replace(self, new_type=(mean, bound))

    def _estimate(self, sizes: Any, rarities: Any) -> Any:
        """Return the expected errors of crystals of known structure types."""
        first, second, third = self.coefficients
        return np.exp(first + second * np.log(np.maximum(sizes, 1e-6)) + third * rarities)

    def expect(self, structure: Structure, size: float) -> tuple[float, float]:
        """Return the expected error of a crystal and its bound, shares of the electrons.

        Both are at most 1.
        """
        error = float(self._estimate(size, compute_rarity(structure, self.elements)))
        known = self._find_type(structure) in self.prototypes
        mean, bound = (1.0, self.factor) if known else self.new_type
        return min(error * mean, 1.0), min(error * bound, 1.0)

    @staticmethod
    def _find_type(structure: Structure) -> str | None:
        try:
            return prototype_label(structure)
        except RhosightError:
            return None

    def list_reasons(self, structure: Structure) -> tuple[str, ...]:
        """Return why a crystal is outside the training domain, or nothing."""
        new = sorted(set(list_symbols(structure)) - set(self.elements))
        reasons = [f"element {symbol} is in no training crystal" for symbol in new]
        label = self._find_type(structure)
        if label is None:
            reasons.append("its structure type is unknown")
        elif label not in self.prototypes:
            reasons.append(f"structure type `{label}` is that of no training crystal")
        return tuple(reasons)

    def to_dict(self) -> dict[str, Any]:
        """Return the state for JSON, which lacks infinity: None in its place."""
        factors = [value if math.isfinite(value) else None for value in self.new_type]
        return asdict(self) | {"new_type": factors}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild the object from the result of :meth:`to_dict`."""
        first, second, third = state["coefficients"]
        mean, bound = (
            math.inf if value is None else float(value)
            for value in state.get("new_type", (None, None))
        )
        return cls(
            coefficients=(first, second, third),
            factor=float(state["factor"]),
            elements=dict(state["elements"]),
            prototypes=tuple(state["prototypes"]),
            new_type=(mean, bound),
        )
