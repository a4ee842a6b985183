"""CHGNet's energies of the elements, the references of its formation energies.

    python benchmarks/make_chgnet_references.py [src/rhosight/data/chgnet_references.json]

The energy of an element is CHGNet's of its most stable crystal in `mp-elastic`, less the formation
energy of that crystal; for a cubic metal that is missing there, of its crystal with the structure
that ASE lists, at CHGNet's volume. Of other elements (gases, Mn, S …) the reference is fitted to
the formation energies of compounds: those of the training set of `mp-elastic` whose formulas are
not in `mp-fcc`, so that no material on which models of `mp-fcc` are scored takes part.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk
from ase.data import atomic_numbers, reference_states
from pymatgen.core import Composition, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from scipy.optimize import least_squares

from rhosight import load_dataset
from rhosight.design.references import list_references
from rhosight.models.baselines.chgnet import find_chgnet_version, predict_energies
from rhosight.models.baselines.potential import compute_energy_curves, find_minimum
from rhosight.networks.weights import packaged_hash

TARGET = "formation_energy_per_atom"
MAX_ATOMS = 12
SCALE = 0.1
"""eV/atom; compounds that miss the fit by more count less."""


def compute_energy(structure: Structure) -> float:
    """Return CHGNet's energy at its own volume, eV/atom."""
    (curve,) = compute_energy_curves([structure])
    return find_minimum(structure, *curve)[0]


def use_crystals() -> dict[str, dict[str, Any]]:
    """Return element → energy and origin, where a crystal is known."""
    references = {}
    for symbol, one in list_references(with_energies=False).items():
        energy = compute_energy(one.make_cell()) - one.formation_energy
        references[symbol] = {"energy": energy, "from": f"crystal {one.material_id}"}
    for symbol in list_missing(references):
        state = reference_states[atomic_numbers[symbol]]
        if state and state["symmetry"] in ("fcc", "bcc"):
            structure = AseAtomsAdaptor.get_structure(bulk(symbol))
            origin = f"{state['symmetry']} crystal at CHGNet's volume"
            references[symbol] = {"energy": compute_energy(structure), "from": origin}
    return references


def list_missing(references: dict[str, dict[str, Any]]) -> list[str]:
    """Return the elements of `mp-elastic` without a reference."""
    formulas = load_dataset("mp-elastic").table["formula"]
    return sorted({e.symbol for f in formulas for e in Composition(f)} - set(references))


def fit_missing(references: dict[str, dict[str, Any]]) -> float:
    """Add fitted references of the other elements; return the typical error, eV/atom."""
    unknown, dataset = list_missing(references), load_dataset("mp-elastic")
    seen = set(load_dataset("mp-fcc").table["formula"])
    table = dataset.table
    rows = table[(table["split"] == "train") & (table["nsites"] <= MAX_ATOMS)]
    rows = rows[~rows["formula"].isin(seen)].dropna(subset=[TARGET])
    compositions = {i: Composition(f) for i, f in rows["formula"].items()}
    used = [i for i, own in compositions.items() if {e.symbol for e in own} & set(unknown)]
    structures = [dataset[i].structure for i in used]
    energies = np.array([float(r["e"]) for r in predict_energies(structures)])
    shares = np.array([[compositions[i].get_atomic_fraction(e) for e in unknown] for i in used])
    known = [
        sum(references[e.symbol]["energy"] * x for e, x in own.items() if e.symbol in references)
        / own.num_atoms
        for own in (compositions[i] for i in used)
    ]
    rest = energies - rows.loc[used, TARGET].to_numpy() - known
    start = np.linalg.lstsq(shares, rest, rcond=None)[0]
    fit = least_squares(lambda mu: shares @ mu - rest, start, loss="soft_l1", f_scale=SCALE)
    for number, symbol in enumerate(unknown):
        count = int((shares[:, number] > 0).sum())
        origin = f"fit to the formation energies of {count} compounds"
        references[symbol] = {"energy": float(fit.x[number]), "from": origin}
    return float(np.median(np.abs(shares @ fit.x - rest)))


def main(path: Path) -> None:
    references = use_crystals()
    error = fit_missing(references)
    for one in references.values():
        one["energy"] = round(one["energy"], 4)
    about = {
        "source": "benchmarks/make_chgnet_references.py",
        "chgnet": find_chgnet_version(),
        "weights_sha256": packaged_hash("chgnet"),
        "unit": "eV/atom",
        "elements": dict(sorted(references.items())),
    }
    path.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(references)} elements; median error of the fit {error:.3f} eV/atom")


if __name__ == "__main__":
    default = "src/rhosight/data/chgnet_references.json"
    main(Path(sys.argv[1] if len(sys.argv) > 1 else default))
