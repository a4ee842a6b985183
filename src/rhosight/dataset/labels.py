"""Check labels for physical plausibility and mask impossible ones."""

from __future__ import annotations

import numpy as np
import pandas as pd

MODULUS = "bulk_modulus_vrh"
MAX_MODULUS = 600.0
"""Largest plausible bulk modulus, GPa. Diamond, the stiffest crystal, has about 440."""
MODULUS_TOLERANCE = 0.0005
"""GPa. Labels are served with three decimals; Voigt and Reuss averages of a cubic tensor agree."""
CUBIC = range(195, 231)


def mask_labels(
    labels: pd.DataFrame,
    max_modulus: float = MAX_MODULUS,
    tolerance: float = MODULUS_TOLERANCE,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Set impossible bulk moduli to missing, and report them with reasons.

    Parameters
    ----------
    labels
        Indexed by material_id. Uses ``bulk_modulus_vrh`` and, if present,
        ``bulk_modulus_voigt``, ``bulk_modulus_reuss`` (GPa) and ``spacegroup_number``.
    max_modulus
        GPa; a modulus above it, or below zero, is impossible.
    tolerance
        GPa; largest difference between Voigt and Reuss averages of a cubic crystal. They are equal
        for a valid elastic tensor of a cubic crystal.

    Returns
    -------
    labels
        A copy with NaN for impossible moduli; the averages stay as served.
    masked
        Columns material_id, target, value (as served, GPa), reason.
    """
    labels = labels.copy()
    rows = []
    for material_id, row in labels.iterrows() if MODULUS in labels else ():
        if reason := _explain_modulus(row, max_modulus, tolerance):
            rows.append((material_id, MODULUS, float(row[MODULUS]), reason))
    masked = pd.DataFrame(rows, columns=["material_id", "target", "value", "reason"])
    if rows:
        labels.loc[masked["material_id"].to_list(), MODULUS] = np.nan
    return labels, masked


def _explain_modulus(row: pd.Series, max_modulus: float, tolerance: float) -> str:
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
