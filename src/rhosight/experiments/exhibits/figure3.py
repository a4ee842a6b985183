"""Figure 3: how the targets and the numbers of elements are distributed."""

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
    """Violins of all targets, as in the paper's Figure 3."""
    return targets_violin(dataset)


def exhibit(dataset: Dataset) -> Exhibit:
    """The violins, with their quartiles, and how many materials have how many elements."""
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
        found = {"property": name, "unit": unit, "n": len(values), "minimum": values.min()}
        found |= {"lower_quartile": low, "median": median, "upper_quartile": high}
        rows.append(found | {"maximum": values.max()})
    note = f"{len(dataset)} materials; the paper's figure shows {SAMPLES['cleaned']} after cleaning"
    note += f" ({SAMPLES['collected']} before), most of them of three elements."
    return Exhibit("figure3", TITLE, pd.DataFrame(rows), draw(dataset), note)
