"""Features with long tails → features of one scale, learned from the training part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..errors import RhosightError


@dataclass
class BlockScaler:
    """Features of a block → features of mean 0 and standard deviation 1 in the training part.

    Attributes
    ----------
    centre, width
        Of arcsinh((x - centre) / width), shape (features,); width 0 leaves a feature as it is.
    mean, std
        Of what comes after it; std 0 marks a feature that is constant and left out.
    """

    centre: np.ndarray
    width: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, table: np.ndarray, linear: bool | np.ndarray) -> Self:
        """From the training part, shape (materials, features); ``linear`` leaves out arcsinh, for
        all features or those (features,) where it is true.
        """
        quarters = np.percentile(table, [25, 75], axis=0)
        width, std = quarters[1] - quarters[0], table.std(axis=0)
        # features that are mostly one value have no quartiles apart
        width = np.where(width > 1e-9 * std, width, std) * np.logical_not(linear)
        scaler = cls(np.median(table, axis=0), width, np.zeros_like(std), np.ones_like(std))
        drawn_in = scaler._drawn_in(table)
        scaler.mean, spread = drawn_in.mean(axis=0), drawn_in.std(axis=0)
        scaler.std = np.where(spread > 1e-9 * np.abs(drawn_in).max(axis=0), spread, 0.0)
        return scaler

    def __call__(self, table: np.ndarray, name: str = "") -> np.ndarray:
        """Scaled features that are not constant, shape (materials, those); ``name`` of the block
        is for the error that another number of features raises.
        """
        if table.shape[1] != len(self.mean):
            raise RhosightError(
                f"block {name!r} has {table.shape[1]} features, but the model was fitted with "
                f"{len(self.mean)}; make both in the same way"
            )
        used = self.std > 0
        return (self._drawn_in(table)[:, used] - self.mean[used]) / self.std[used]

    def _drawn_in(self, table: np.ndarray) -> np.ndarray:
        shift = table - self.centre
        scaled = np.arcsinh(np.divide(shift, self.width, out=shift.copy(), where=self.width > 0))
        return np.where(self.width > 0, scaled, table)
