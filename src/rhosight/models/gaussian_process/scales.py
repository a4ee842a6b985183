"""Scales in which targets are learned, such as logarithms of moduli.

Moduli of all crystals span three orders of magnitude, and their errors grow with them: a logarithm
or a square root is learned, and the ends of an interval are transformed back. A band gap is learned
as it is, metals as 0 like any other value; a prediction or an end of an interval below 0 becomes 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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

    def restore(self, values: Any, xp: Any = np) -> Any:
        """Return values of the scales in the targets' units, shape (n, targets).

        With ``xp`` PyTorch and a tensor, the result is differentiable.
        """
        restored = []
        for column, name in enumerate(self.targets):
            own, scale = values[:, column], self.scales.get(name)
            if scale == "log10":
                with np.errstate(over="ignore"):
                    own = 10.0**own
            elif scale in ("nonnegative", "sqrt"):
                own = xp.clip(own, 0.0, None)
            restored.append(own**2 if scale == "sqrt" else own)
        return xp.stack(restored, -1)

    def restore_std(self, values: np.ndarray, std: np.ndarray) -> np.ndarray:
        """Return standard deviations in the targets' units, about values of the scales."""
        return (self.restore(values + std) - self.restore(values - std)) / 2
