"""Compare GPAW's formation energies of verified proposals with those of CHGNet.

    python benchmarks/design_chgnet.py light/verified.parquet light/verified.csv

Both files come from ``rhosight design --verify gpaw``. Energies of CHGNet refer to CHGNet's own
energies of the elements' reference crystals. It has learned from the Materials Project.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from pymatgen.core import Structure

import rhosight
from rhosight.design.references import list_references
from rhosight.models.baselines.chgnet import predict_energies

E = "formation_energy_per_atom"


def energies(structures: list[Structure]) -> np.ndarray:
    """Return energies of CHGNet, eV/atom."""
    return np.array([float(result["e"]) for result in predict_energies(structures)])


def main() -> None:
    """Print the errors of the search's predictions and of CHGNet."""
    dataset = rhosight.load_dataset(sys.argv[1])
    table = pd.read_csv(sys.argv[2]).set_index("name").loc[dataset.ids]
    structures = list(dataset.structures)
    references = list_references()
    symbols = sorted({e.symbol for structure in structures for e in structure.elements})
    own = energies([references[symbol].make_cell() for symbol in symbols])
    elements = {
        symbol: energy - references[symbol].formation_energy
        for symbol, energy in zip(symbols, own, strict=True)
    }
    shares = [s.composition.fractional_composition.as_dict() for s in structures]
    table["chgnet"] = energies(structures) - [
        sum(share * elements[symbol] for symbol, share in one.items()) for one in shares
    ]
    for name in (E, "chgnet"):
        table[f"{name} error"] = table[name] - table[f"{E}_verified"]
    columns = ["formula", f"{E}_verified", f"{E}_inside", f"{E} error", "chgnet error"]
    print(table[columns].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
