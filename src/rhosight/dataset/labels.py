"""Check labels for physical sense and mask those that cannot be right."""

from __future__ import annotations

import numpy as np
import pandas as pd

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
