"""Expected error of a predicted density, and whether its crystal is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
    """

    coefficients: tuple[float, float, float]
    factor: float
    elements: dict[str, int]
    prototypes: tuple[str, ...]

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

    def expect(self, structure: Structure, size: float) -> tuple[float, float]:
        """Return the expected error of a crystal and its bound, shares of the electrons."""
        first, second, third = self.coefficients
        rarity = compute_rarity(structure, self.elements)
        error = np.exp(first + second * np.log(max(size, 1e-6)) + third * rarity)
        return float(error), float(error * self.factor)

    def list_reasons(self, structure: Structure) -> tuple[str, ...]:
        """Return why a crystal is outside the training domain, or nothing."""
        new = sorted(set(list_symbols(structure)) - set(self.elements))
        reasons = [f"element {symbol} is in no training crystal" for symbol in new]
        try:
            label = prototype_label(structure)
            if label not in self.prototypes:
                reasons.append(f"structure type `{label}` is that of no training crystal")
        except RhosightError as error:
            reasons.append(f"its structure type is unknown ({error})")
        return tuple(reasons)

    def to_dict(self) -> dict[str, Any]:
        """Return the state for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild the object from the result of :meth:`to_dict`."""
        first, second, third = state["coefficients"]
        return cls(
            coefficients=(first, second, third),
            factor=float(state["factor"]),
            elements=dict(state["elements"]),
            prototypes=tuple(state["prototypes"]),
        )
