"""Scales in which targets are learned, such as logarithms of moduli.

Moduli of all crystals span three orders of magnitude, and their errors grow with them: a logarithm
or a square root is learned, and the ends of an interval are transformed back. A band gap is learned
as it is, metals as 0 like any other value; a prediction or an end of an interval below 0 becomes 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...errors import RhosightError

Scale = Literal["log10", "sqrt", "nonnegative"]

_NAMES = {"log10": "logarithm", "sqrt": "square root"}


@dataclass(frozen=True)
class TargetScales:
    """Transform labels for learning, and predictions back.

    Parameters
    ----------
    targets
        Names of the columns.
    scales
        Target → scale; others are learned as they are.
    """

    targets: Sequence[str]
    scales: Mapping[str, Scale]

    def learn(self, labels: np.ndarray) -> np.ndarray:
        """Return labels in the scales, shape (n, targets); NaN stays NaN.

        Raises
        ------
        RhosightError
            If a label that is learned as a logarithm or a square root is not positive.
        """
        scaled = np.array(labels, dtype=float)
        for column, name in enumerate(self.targets):
            if (scale := self.scales.get(name)) not in _NAMES:
                continue
            if (scaled[:, column] <= 0).any():
                raise RhosightError(
                    f"`{name}` is learned as a {_NAMES[scale]}, but "
                    f"{np.nanmin(scaled[:, column]):g} is among its labels; mask labels that are "
                    "not positive"
                )
            scaled[:, column] = (np.log10 if scale == "log10" else np.sqrt)(scaled[:, column])
        return scaled

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Return values of the scales in the targets' units, shape (n, targets)."""
        restored = np.array(values, dtype=float)
        for column, name in enumerate(self.targets):
            if self.scales.get(name) == "log10":
                with np.errstate(over="ignore"):
                    restored[:, column] = 10.0 ** restored[:, column]
            elif self.scales.get(name) in ("nonnegative", "sqrt"):
                restored[:, column] = np.maximum(restored[:, column], 0.0)
            if self.scales.get(name) == "sqrt":
                restored[:, column] **= 2
        return restored

    def restore_std(self, values: np.ndarray, std: np.ndarray) -> np.ndarray:
        """Return standard deviations in the targets' units, about values of the scales."""
        return (self.restore(values + std) - self.restore(values - std)) / 2

    def units(self, units: Mapping[str, str]) -> dict[str, str]:
        """Return the units of the scales."""
        return {
            name: f"{scale} of {unit}" if (scale := self.scales.get(name)) in _NAMES else unit
            for name, unit in units.items()
        }
