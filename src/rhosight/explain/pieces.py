"""The interface of explainers, and the pieces of an input that they can remove."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .explanation import Explanation


class Explainer(Protocol):
    """Explain one material at a time, given as a collection of one for ``predict``."""

    targets: tuple[str, ...]

    def __call__(self, part: Any, details: bool = True) -> Explanation:
        """Explain one material; without ``details``, only by whole modalities."""

    def pieces(self, part: Any, modality: str) -> Pieces:
        """Return the removable pieces of one modality of a material's input."""


@dataclass(frozen=True)
class Pieces:
    """Removable pieces of a material's input, with predictions for missing pieces.

    Attributes
    ----------
    attributions
        Shape (targets, pieces), in units of each target's standard deviation.
    predict
        Mask of the missing pieces in each of m variants, shape (m, pieces) → predictions, shape
        (m, targets), in the same units.
    """

    attributions: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray]


def name_values(targets: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Return target → value."""
    return {name: float(value) for name, value in zip(targets, values, strict=True)}
