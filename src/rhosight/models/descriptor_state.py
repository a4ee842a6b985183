"""The state of a fitted descriptor model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from ..inputs.descriptors.blocks import SPARSE
from .gaussian_process.committee import Committee
from .uncertainty import ConformalIntervals, TrainingDomain


@dataclass(frozen=True)
class Estimate:
    """Predictions of n materials, in the scales in which targets are learned.

    Attributes
    ----------
    mean, std
        Shape (n, targets).
    outside
        Why each material is outside the training domain, or None.
    """

    mean: np.ndarray
    std: np.ndarray
    outside: tuple[str | None, ...]


@dataclass(frozen=True)
class DescriptorState:
    """Hold what a descriptor model has learned.

    Attributes
    ----------
    prototypes
        Structure types of the training set, sorted; of a large set those with three materials.
    recurring
        Whether new materials are expected to have one of these types.
    process, intervals, domain
        The Gaussian processes, the intervals, and the limits of the training domain.
    """

    prototypes: list[str]
    recurring: bool
    process: Committee
    intervals: ConformalIntervals
    domain: TrainingDomain

    def describe_type(self, label: str) -> str | None:
        """Return that a structure type is unknown: models predict those least accurately."""
        if label in self.prototypes or not self.recurring:
            return None
        return f"structure type {label} (space group and sites) is that of no training material"

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state that belongs in a file of arrays, such as safetensors."""
        arrays = {f"process/{k}": v for k, v in self.process.arrays().items()}
        arrays |= {f"domain/{k}": v for k, v in self.domain.arrays().items()}
        return {k: np.ascontiguousarray(v) for k, v in arrays.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the rest of the state, for JSON."""
        return {
            "prototypes": self.prototypes,
            "recurring_types": self.recurring,
            "process": self.process.to_dict(),
            "intervals": self.intervals.to_dict(),
            "domain": self.domain.to_dict(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild the state that :meth:`to_dict` and :meth:`arrays` describe."""

        def part(name: str) -> dict[str, np.ndarray]:
            prefix = f"{name}/"
            return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

        return cls(
            prototypes=state["prototypes"],
            recurring=bool(state.get("recurring_types", True)),
            process=Committee.from_state(state["process"], part("process")),
            intervals=ConformalIntervals.from_dict(state["intervals"]),
            domain=TrainingDomain.from_state(state["domain"], part("domain")),
        )


def join_blocks(blocks: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Return the features of the training-domain check: all but the sparse blocks.

    The domain checks elements by name.
    """
    return np.hstack(
        [block.to_numpy(float) for name, block in blocks.items() if name not in SPARSE]
    )
