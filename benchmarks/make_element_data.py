"""Collect the properties of the elements that descriptors read into one table.

    python benchmarks/make_element_data.py [--out FILE]

The output is src/rhosight/data/elements.csv: one row for each element, and columns

- ``magpie …``: Magpie's table (Ward et al., npj Comput. Mater. 2, 16028 (2016),
  doi:10.1038/npjcompumats.2016.28); matminer replaces missing values by the mean over the elements
- ``deml …``: Deml et al., Phys. Rev. B 93, 085142 (2016), doi:10.1103/PhysRevB.93.085142; likewise
- ``miedema …``: parameters of Miedema's model (Zhang et al., Comput. Phys. Commun. 209, 58 (2016),
  doi:10.1016/j.cpc.2016.08.013); missing values are replaced by the mean
- ``cohesive_energy``: Kittel, eV/atom
- ``pymatgen …``: pymatgen's periodic table

matminer and pymatgen read these from their own files, which takes seconds at each start, and their
values may change between versions. Predictions of a saved model must not.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from matminer.featurizers.composition import ElementProperty, Miedema
from matminer.utils.data import CohesiveEnergyData, DemlData, MagpieData
from pymatgen.core import Element

from rhosight.inputs.descriptors.element_data import TABLE
from rhosight.inputs.descriptors.elements import DEML, PYMATGEN


def collect() -> pd.DataFrame:
    """Return the table; what is missing stays missing, except where matminer replaces it."""
    elements = [element for element in Element if element.symbol not in ("D", "T")]
    index = pd.Index([element.symbol for element in elements], name="symbol")
    columns: dict[str, list[float]] = {}
    magpie = MagpieData(impute_nan=True)
    for name in ElementProperty.from_preset("magpie").features:
        values = [magpie.get_elemental_property(element, name) for element in elements]
        columns[f"magpie {name}"] = [to_number(value) for value in values]
    deml = DemlData()
    for name in DEML:
        values = [deml.get_elemental_property(element, name) for element in elements]
        columns[f"deml {name}"] = [to_number(value) for value in values]
    miedema = Miedema().df_dataset
    for name in miedema.columns.drop(["Unnamed: 0", "element_id"]):
        columns[f"miedema {name}"] = [to_number(miedema[name].get(s)) for s in index]
    cohesive = CohesiveEnergyData().cohesive_energy_data
    columns["cohesive_energy"] = [to_number(cohesive.get(symbol)) for symbol in index]
    for name in PYMATGEN:
        columns[f"pymatgen {name}"] = [to_number(get_property(e, name)) for e in elements]
    return pd.DataFrame(columns, index=index, dtype=float)


def get_property(element: Element, name: str) -> Any:
    """Return a property of pymatgen's periodic table, None if it lacks it."""
    try:
        return getattr(element, name, None)
    except KeyError:  # of elements beyond the table of electron affinities
        return None


def to_number(value: Any) -> float:
    """Return a value without its unit, NaN if there is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TABLE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about properties that an element does not have
        collect().to_csv(parser.parse_args().out)


if __name__ == "__main__":
    main()
