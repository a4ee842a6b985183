"""Make Figure 3: distributions of the targets and of the number of elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from pymatgen.core import Composition

from ...dataset.figures import targets_violin
from ..exhibit import Exhibit
from ..paper import SAMPLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ...dataset.dataset import Dataset

TITLE = "Distributions of the targets and of the number of elements"


def draw(dataset: Dataset) -> Figure:
    """Draw violins of all targets, as in the paper's Figure 3."""
    return targets_violin(dataset)


def make_exhibit(dataset: Dataset) -> Exhibit:
    """Draw the violins, with the quartiles as the table."""
    elements = [
        len(Composition(formula).element_composition) for formula in dataset.table["formula"]
    ]
    columns = {
        (name, dataset.units[name]): dataset.targets[name].dropna() for name in dataset.units
    }
    columns["number of elements", ""] = pd.Series(elements, dtype=float)
    rows = []
    for (name, unit), values in columns.items():
        low, median, high = values.quantile([0.25, 0.5, 0.75])
        row = {"property": name, "unit": unit, "n": len(values), "minimum": values.min()}
        row |= {"lower_quartile": low, "median": median, "upper_quartile": high}
        rows.append(row | {"maximum": values.max()})
    note = f"{len(dataset)} materials; the paper's figure shows {SAMPLES['cleaned']} after cleaning"
    note += f" ({SAMPLES['collected']} before), most of them of three elements."
    return Exhibit("figure3", TITLE, pd.DataFrame(rows), draw(dataset), note)
