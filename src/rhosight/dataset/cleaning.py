"""Cleaning: labels that cannot be right, and the paper's filter of outlying densities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..density import Kind
from ..errors import RhosightError

if TYPE_CHECKING:
    from .core import Dataset

MODULUS = "bulk_modulus_vrh"
MAX_MODULUS = 600.0
"""GPa. Diamond, the stiffest crystal at ambient pressure, has about 440."""
MODULUS_TOLERANCE = 0.0005
"""GPa. Labels are served to 0.001; Voigt and Reuss averages of a cubic tensor are equal."""
CUBIC = range(195, 231)


def mask_labels(
    labels: pd.DataFrame,
    max_modulus: float = MAX_MODULUS,
    tolerance: float = MODULUS_TOLERANCE,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Set bulk moduli that cannot be right to missing, and say which and why.

    Parameters
    ----------
    labels
        Indexed by material_id. Looks at ``bulk_modulus_vrh`` and, where there,
        ``bulk_modulus_voigt``, ``bulk_modulus_reuss`` (GPa) and ``spacegroup_number``.
    max_modulus
        GPa; a modulus above it, or below zero, is nonsense.
    tolerance
        GPa; by how much Voigt and Reuss averages of a cubic crystal may differ. For a sound elastic
        tensor of a cubic crystal they are equal.

    Returns
    -------
    labels
        A copy with NaN in their place; the averages stay as served.
    masked
        Columns material_id, target, value (as served, GPa), reason.
    """
    labels = labels.copy()
    reasons: dict[str, str] = {}
    for material_id, row in labels.iterrows() if MODULUS in labels else ():
        reason = _modulus_reason(row, max_modulus, tolerance)
        if reason:
            reasons[material_id] = reason
    masked = pd.DataFrame(
        [(i, MODULUS, float(labels.at[i, MODULUS]), reason) for i, reason in reasons.items()],
        columns=["material_id", "target", "value", "reason"],
    )
    if reasons:
        labels.loc[list(reasons), MODULUS] = np.nan
    return labels, masked


def _modulus_reason(row: pd.Series, max_modulus: float, tolerance: float) -> str:
    value = row[MODULUS]
    if pd.isna(value):
        return ""
    if value < 0:
        return "a bulk modulus cannot be negative"
    if value > max_modulus:
        return f"above {max_modulus:g} GPa"
    voigt, reuss = row.get("bulk_modulus_voigt"), row.get("bulk_modulus_reuss")
    if row.get("spacegroup_number") not in CUBIC or pd.isna(voigt) or pd.isna(reuss):
        return ""
    if abs(voigt - reuss) > tolerance:
        return f"cubic crystal, but Voigt {voigt:g} and Reuss {reuss:g} GPa differ"
    return ""


def iqr_filter(
    dataset: Dataset,
    kind: Kind = "difference",
    factor: float = 1.5,
    reference: Dataset | None = None,
) -> tuple[Dataset, pd.DataFrame]:
    """Remove materials whose density has an outlying maximum or minimum (paper section 2.1).

    A material stays if the maximum of its grid lies within [Q1 − factor·IQR, Q3 + factor·IQR] of
    the maxima, and its minimum within the same of the minima.

    Parameters
    ----------
    dataset
        What to filter.
    kind
        Kind of density; every material needs it.
    factor
        In interquartile ranges.
    reference
        Where the quartiles come from, by default ``dataset``. Give the training part, so that
        nothing of the test part enters.

    Returns
    -------
    kept
        The materials within both ranges.
    report
        One row for each violated bound: material_id, extreme ("maximum" or "minimum"), value and
        bound (e/Å³), reason. ``report.attrs["bounds"]`` has all four bounds, extreme → (lower,
        upper).
    """
    if not factor > 0:
        raise RhosightError(f"the IQR factor must be positive, not {factor}")
    extremes = _extremes(dataset, kind)
    known = extremes if reference is None else _extremes(reference, kind)
    if known.empty:
        raise RhosightError("no material to compute quartiles from; the reference is empty")
    first, third = known.quantile(0.25), known.quantile(0.75)
    reach = factor * (third - first)
    lower, upper = first - reach, third + reach
    found = []
    for extreme in extremes.columns:
        for i, value in extremes[extreme].items():
            if lower[extreme] <= value <= upper[extreme]:
                continue
            side = "below" if value < lower[extreme] else "above"
            bound = (lower if side == "below" else upper)[extreme]
            reason = f"{extreme} of {kind} {value:.4g} e/Å³ is {side} the bound {bound:.4g}"
            found.append((i, extreme, value, float(bound), reason))
    report = pd.DataFrame(found, columns=["material_id", "extreme", "value", "bound", "reason"])
    report.attrs["bounds"] = {e: (float(lower[e]), float(upper[e])) for e in extremes.columns}
    removed = set(report["material_id"])
    return dataset[[i not in removed for i in dataset.ids]], report


def _extremes(dataset: Dataset, kind: Kind) -> pd.DataFrame:
    """Maximum and minimum of each grid, e/Å³, indexed by material_id."""
    grids = (density.grid(kind) for density in dataset.densities)
    found = [(float(grid.max()), float(grid.min())) for grid in grids]
    return pd.DataFrame(found, index=dataset.ids, columns=["maximum", "minimum"], dtype=float)
