"""Statistics of a density over the cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...density.charge_density import ChargeDensity, Kind
from ...errors import RhosightError

PERCENTS: tuple[int, ...] = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
"""Quantiles of :func:`density_statistics`, %."""


def density_features(
    densities: Sequence[ChargeDensity], kinds: Kind | Sequence[Kind]
) -> pd.DataFrame:
    """Compute statistics over the cell of one or several kinds of density.

    Parameters
    ----------
    densities
        n materials.
    kinds
        Such as ``("promolecule",)`` or ``("total", "difference")``.

    Returns
    -------
    pandas.DataFrame
        n rows: ``volume_per_atom`` (Å³), then those of :func:`density_statistics` for each kind,
        with the kind as their prefix.

    Raises
    ------
    RhosightError
        If a material lacks a kind; the message names it.
    """
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    rows = []
    for density in densities:
        rows.append({"volume_per_atom": density.structure.volume / len(density.structure)})
        for kind in kinds:
            rows[-1] |= density_statistics(density.grid(kind), kind)
    names = [name for kind in kinds for name in density_statistics(np.zeros(1), kind)]
    return pd.DataFrame(rows, columns=["volume_per_atom", *names])


def density_statistics(grid: np.ndarray, prefix: str) -> dict[str, float]:
    """Compute quantiles and moments of a density over the cell.

    They do not depend on the order of the points, and a supercell, which repeats them, has the same
    values: a quantile is the smallest value that the given share of the points does not exceed,
    without interpolation.

    Parameters
    ----------
    grid
        Array of any shape, e/Å³.
    prefix
        Beginning of the names.

    Returns
    -------
    dict
        ``{prefix}_q0``, ``{prefix}_q1`` … ``{prefix}_q100``, the quantiles at :data:`PERCENTS`;
        ``{prefix}_mean``, ``_std`` and ``_mean_abs`` (mean of the absolute values), all in e/Å³;
        ``_skew`` and ``_kurtosis`` (excess: 0 for a normal distribution), without unit and 0 for a
        constant density.

    Raises
    ------
    RhosightError
        If the grid is empty or contains NaN or infinities.
    """
    values = np.sort(np.asarray(grid, dtype=float), axis=None)
    if values.size == 0 or not np.isfinite(values).all():
        raise RhosightError(
            f"`{prefix}`: statistics need a density grid of finite values, but this one of shape "
            f"{np.shape(grid)} is empty or contains NaN or infinities; correct the density"
        )
    # integer ranks: a product with a fraction such as 0.05 may round to the next point
    ranks = [max(-(-percent * values.size // 100) - 1, 0) for percent in PERCENTS]
    result = {
        f"{prefix}_q{percent}": float(values[rank])
        for percent, rank in zip(PERCENTS, ranks, strict=True)
    }
    mean, mean_abs = values.mean(), np.abs(values).mean()
    centred = values - mean
    std = np.sqrt(np.mean(centred**2))
    constant = std <= 1e-12 * mean_abs  # what remains is rounding
    scaled = np.zeros_like(values) if constant else centred / std
    result[f"{prefix}_mean"] = float(mean)
    result[f"{prefix}_std"] = float(std)
    result[f"{prefix}_skew"] = float(np.mean(scaled**3))
    result[f"{prefix}_kurtosis"] = 0.0 if constant else float(np.mean(scaled**4) - 3)
    result[f"{prefix}_mean_abs"] = float(mean_abs)
    return result
