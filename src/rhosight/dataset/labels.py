"""Check labels for physical plausibility and mask impossible ones."""

from __future__ import annotations

import numpy as np
import pandas as pd

MODULI = ("bulk_modulus", "shear_modulus")
"""Moduli that are checked, each with the averages ``_vrh`` (a target), ``_voigt``, ``_reuss``."""
MAX_MODULUS = 600.0
"""Largest plausible modulus, GPa. Diamond, the stiffest crystal, has bulk and shear moduli of about
440 and 520."""
MODULUS_TOLERANCE = 0.0005
"""GPa. Labels are served with three decimals; Voigt and Reuss averages of the bulk modulus of a
cubic tensor agree."""
MAX_RATIO = 5.0
"""Largest ratio of the Voigt to the Reuss average: beyond it their mean says nothing. Layered
crystals reach 4, nearly singular tensors 100."""
CUBIC = range(195, 231)


def mask_labels(
    labels: pd.DataFrame,
    max_modulus: float = MAX_MODULUS,
    tolerance: float = MODULUS_TOLERANCE,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Set impossible moduli to missing, and report them with reasons.

    Parameters
    ----------
    labels
        Indexed by material_id. Uses ``bulk_modulus_vrh``, ``shear_modulus_vrh`` and, if present,
        their ``_voigt`` and ``_reuss`` averages (GPa) and ``spacegroup_number``.
    max_modulus
        GPa; a modulus above it, or below zero, is impossible.
    tolerance
        GPa; largest amount by which the Reuss average may exceed the Voigt average, its upper
        bound, and largest difference between those of a cubic crystal's bulk modulus, which are
        equal for a valid elastic tensor.

    Returns
    -------
    labels
        A copy with NaN for impossible moduli; the averages stay as served.
    masked
        Columns material_id, target, value (as served, GPa), reason.
    """
    labels = labels.copy()
    rows = []
    for modulus in MODULI:
        target = f"{modulus}_vrh"
        for material_id, row in labels.iterrows() if target in labels else ():
            if reason := _explain_modulus(row, modulus, max_modulus, tolerance):
                rows.append((material_id, target, float(row[target]), reason))
    masked = pd.DataFrame(rows, columns=["material_id", "target", "value", "reason"])
    for name, ids in masked.groupby("target")["material_id"]:
        labels.loc[ids.to_list(), str(name)] = np.nan
    return labels, masked


def _explain_modulus(row: pd.Series, modulus: str, max_modulus: float, tolerance: float) -> str:
    """Return why a modulus is impossible; an empty text if it is not."""
    value = row[f"{modulus}_vrh"]
    if pd.isna(value):
        return ""
    if value < 0:
        return f"a {modulus.replace('_', ' ')} cannot be negative"
    if value > max_modulus:
        return f"above {max_modulus:g} GPa"
    voigt, reuss = row.get(f"{modulus}_voigt"), row.get(f"{modulus}_reuss")
    if pd.isna(voigt) or pd.isna(reuss):
        return ""
    both = f"Voigt {voigt:g} and Reuss {reuss:g} GPa"
    is_cubic = row.get("spacegroup_number") in CUBIC
    if is_cubic and modulus == "bulk_modulus" and abs(voigt - reuss) > tolerance:
        return f"cubic crystal, but {both} differ"
    if reuss > voigt + tolerance:
        return f"{both} differ the wrong way: Voigt's is the upper bound"
    if voigt > MAX_RATIO * reuss:
        return f"{both} differ by more than a factor of {MAX_RATIO:g}"
    return ""
