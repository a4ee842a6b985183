"""Scaling of features with long tails, learned from the training set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..errors import RhosightError


@dataclass
class BlockScaler:
    """Scaling of a block's features to mean 0 and standard deviation 1.

    Mean and standard deviation are those of the training set.

    Attributes
    ----------
    centre, width
        Parameters of arcsinh((x - centre) / width), shape (features,); with width 0 a feature is
        not transformed.
    mean, std
        Mean and standard deviation after this transformation, shape (features,); std 0 marks a
        constant feature, which is left out.
    """

    centre: np.ndarray
    width: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, table: np.ndarray, linear: bool | np.ndarray) -> Self:
        """Fit the scaling to the training set, shape (materials, features).

        ``linear`` omits arcsinh, for all features or for those where it is true, shape (features,).
        """
        quarters = np.percentile(table, [25, 75], axis=0)
        width, std = quarters[1] - quarters[0], table.std(axis=0)
        # features that are mostly one value have equal quartiles
        width = np.where(width > 1e-9 * std, width, std) * np.logical_not(linear)
        scaler = cls(np.median(table, axis=0), width, np.zeros_like(std), np.ones_like(std))
        compressed = scaler._compress_tails(table)
        scaler.mean, spread = compressed.mean(axis=0), compressed.std(axis=0)
        scaler.std = np.where(spread > 1e-9 * np.abs(compressed).max(axis=0), spread, 0.0)
        return scaler

    def __call__(self, table: np.ndarray, name: str = "") -> np.ndarray:
        """Return scaled features without the constant ones.

        Parameters
        ----------
        table
            Shape (materials, features).
        name
            Name of the block, for messages.

        Returns
        -------
        numpy.ndarray
            Shape (materials, features that are not constant).

        Raises
        ------
        RhosightError
            If the number of features differs from that of the training set.
        """
        if table.shape[1] != len(self.mean):
            raise RhosightError(
                f"block {name!r} has {table.shape[1]} features, but the model was fitted with "
                f"{len(self.mean)}; compute both with the same version and settings"
            )
        used = self.std > 0
        return (self._compress_tails(table)[:, used] - self.mean[used]) / self.std[used]

    def _compress_tails(self, table: np.ndarray) -> np.ndarray:
        shift = table - self.centre
        scaled = np.arcsinh(np.divide(shift, self.width, out=shift.copy(), where=self.width > 0))
        return np.where(self.width > 0, scaled, table)
