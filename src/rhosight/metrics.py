"""Scores of predictions against known values."""

from __future__ import annotations

import numpy as np


def r2_score(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the coefficient of determination; NaN if the true values have no spread."""
    spread = np.sum((true - true.mean()) ** 2) if len(true) else 0.0
    return float(1 - np.sum((true - predicted) ** 2) / spread) if spread > 0 else float("nan")


def rmse(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the root mean square error, in the values' unit; NaN without values."""
    return float(np.sqrt(np.mean((true - predicted) ** 2))) if len(true) else float("nan")
