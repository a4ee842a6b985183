"""Errors of predicted densities, and cross-validation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .examples import Examples

OUTSIDE = 1.1
"""Å; beyond this distance from all nuclei a point counts as outside the cores."""


def compute_errors(examples: Examples, rows: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """Return the errors of each crystal whose points are given.

    Parameters
    ----------
    examples
        The crystals, with their true densities.
    rows
        Positions of n points: all points of each crystal.
    predicted
        Predicted difference there, e/Å³, shape (n,).

    Returns
    -------
    DataFrame
        One row for each crystal, indexed by its number. ``error`` is ∫|ρ − ρ̂| / ∫ρ, ``outside``
        the same beyond :data:`OUTSIDE`, ``promolecule`` and ``promolecule_outside`` those of the
        free atoms, ``electrons`` is ∫(ρ̂ − ρ) / ∫ρ, ``size`` ∫|Δρ̂| / ∫ρ.
    """
    volume, truth = examples.volume[rows], examples.difference[rows]
    far = (examples.nearest[rows] > OUTSIDE).numpy()
    total = volume * examples.total[rows]
    columns = {
        "error": volume * np.abs(predicted - truth),
        "outside": volume * np.abs(predicted - truth) * far,
        "promolecule": volume * np.abs(truth),
        "promolecule_outside": volume * np.abs(truth) * far,
        "electrons": volume * (predicted - truth),
        "size": volume * np.abs(predicted),
        "total": total,
        "total_outside": total * far,
    }
    table = pd.DataFrame(columns).groupby(examples.crystal[rows]).sum()
    result = {
        name: table[name] / table["total_outside" if name.endswith("outside") else "total"]
        for name in columns
        if not name.startswith("total")
    }
    return pd.DataFrame(result)


def summarise(errors: pd.DataFrame) -> dict[str, float]:
    """Summarise the errors of many crystals.

    Means and quantiles in percent of the electrons; ``better``: share of the crystals that are
    closer to the truth than their promolecule.
    """
    return {
        "crystals": len(errors),
        "mean": 100 * float(errors["error"].mean()),
        "median": 100 * float(errors["error"].median()),
        "p90": 100 * float(errors["error"].quantile(0.9)),
        "outside": 100 * float(errors["outside"].mean()),
        "electrons": 100 * float(errors["electrons"].abs().mean()),
        "promolecule": 100 * float(errors["promolecule"].mean()),
        "promolecule_outside": 100 * float(errors["promolecule_outside"].mean()),
        "better": float((errors["error"] < errors["promolecule"]).mean()),
    }
