"""Choose proposals: probable ones that are not all alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pymatgen.core import Composition

from .wishes import FORMATION_ENERGY

PLAUSIBLE = 0.1
"""Smallest probability of a proposal."""

SPREAD = 0.15
"""Share of its probability that a copy of a chosen proposal would lose."""


def keep_lowest(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep one crystal of each composition: that of the lowest predicted energy.

    The elements of a structure type may take its roles in several ways, and a composition may have
    several types; nature takes the one of the lowest energy.
    """
    if FORMATION_ENERGY in rows:
        rows = rows.sort_values([FORMATION_ENERGY, "name"])
    else:
        rows = rows.sort_values(["probability", "name"], ascending=[False, True])
    return rows.drop_duplicates("formula")


def choose_diverse(rows: pd.DataFrame, count: int, spread: float = SPREAD) -> pd.DataFrame:
    """Return rows in the order in which they should be tried.

    Parameters
    ----------
    rows
        With the columns ``probability``, ``formula``, ``label``, ``name``.
    count
        Number of rows wanted.
    spread
        Share of the probability that is taken off for complete likeness to a chosen row.
    """
    rows = rows.sort_values(["probability", "name"], ascending=[False, True])
    # the penalty is bounded, so that only the first few can be chosen
    rows = rows.head(max(10 * count, 200)).reset_index(drop=True)
    shares = _share_table(rows["formula"].tolist())
    labels = rows["label"].to_numpy(str)
    value = rows["probability"].to_numpy(float)
    alike = np.zeros(len(rows))
    chosen: list[int] = []
    for _ in range(min(count, len(rows))):
        score = value * (1 - spread * alike)
        score[chosen] = -1
        best = int(np.argmax(score))
        chosen.append(best)
        overlap = 1 - np.abs(shares - shares[best]).sum(axis=1) / 2
        alike = np.maximum(alike, overlap * np.where(labels == labels[best], 1.0, 0.7))
    return rows.iloc[chosen].reset_index(drop=True)


def _share_table(formulas: Sequence[str]) -> np.ndarray:
    """Return the share of each element, shape (formulas, elements)."""
    shares = pd.DataFrame(
        [Composition(formula).fractional_composition.as_dict() for formula in formulas]
    )
    return shares.fillna(0.0).to_numpy()
