"""Properties of the elements, from a table that comes with the package.

`benchmarks/make_element_data.py` collects them from matminer and pymatgen, and names their sources.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

TABLE = Path(__file__).parents[2] / "data" / "elements.csv"

MAGPIE = (
    "Number",
    "MendeleevNumber",
    "AtomicWeight",
    "MeltingT",
    "Column",
    "Row",
    "CovalentRadius",
    "Electronegativity",
    "NsValence",
    "NpValence",
    "NdValence",
    "NfValence",
    "NValence",
    "NsUnfilled",
    "NpUnfilled",
    "NdUnfilled",
    "NfUnfilled",
    "NUnfilled",
    "GSvolume_pa",
    "GSbandgap",
    "GSmagmom",
    "SpaceGroupNumber",
)
"""Properties of Magpie's table (doi:10.1038/npjcompumats.2016.28), in its units."""

MAGPIE_STATISTICS = ("minimum", "maximum", "range", "mean", "avg_dev", "mode")


@cache
def load_element_data(source: str) -> pd.DataFrame:
    """Return the properties of all elements from one source.

    Parameters
    ----------
    source
        ``magpie``, ``deml``, ``miedema``, ``pymatgen`` or ``cohesive_energy``.

    Returns
    -------
    pandas.DataFrame
        Symbols × names of the properties, in the units of the source; NaN where it has no value.
    """
    table = _read_table()
    if source in table:
        return table[[source]]
    prefix = f"{source} "
    own = table.loc[:, table.columns.str.startswith(prefix)]
    return own.rename(columns=lambda name: name.removeprefix(prefix))


def list_magpie_labels() -> list[str]:
    """Return the names that matminer gives to :func:`compute_magpie`'s statistics."""
    return [f"MagpieData {statistic} {name}" for name in MAGPIE for statistic in MAGPIE_STATISTICS]


def compute_magpie(amounts: dict[str, float]) -> np.ndarray:
    """Compute statistics of Magpie's properties over the atoms of a formula.

    Parameters
    ----------
    amounts
        Symbol → number of atoms.

    Returns
    -------
    numpy.ndarray
        Six statistics of each of 22 properties, in the order of :func:`list_magpie_labels`. They
        equal those of matminer's ``ElementProperty``: ``avg_dev`` is the mean absolute deviation,
        ``mode`` the value of the most frequent element (the smallest if there are several).
    """
    rows = _list_magpie_rows()
    values = np.array([rows[symbol] for symbol in amounts])
    weights = np.array(list(amounts.values()), dtype=float)
    low, high = values.min(0), values.max(0)
    mean = np.average(values, axis=0, weights=weights)
    deviation = np.average(np.abs(values - mean), axis=0, weights=weights)
    mode = values[np.isclose(weights, weights.max())].min(0)
    return np.stack([low, high, high - low, mean, deviation, mode], axis=1).ravel()


@cache
def _list_magpie_rows() -> dict[str, np.ndarray]:
    """Return symbol → properties, which is faster than rows of a table."""
    table = load_element_data("magpie")[list(MAGPIE)]
    return dict(zip(table.index, table.to_numpy(), strict=True))


@cache
def _read_table() -> pd.DataFrame:
    # sodium is Na, and pandas would read NaN for "NA" only; empty cells alone are missing values
    return pd.read_csv(
        TABLE,
        index_col="symbol",
        float_precision="round_trip",
        keep_default_na=False,
        na_values=[""],
    )
