"""Select crystals that are not face-centred cubic for DFT calculations.

    python draw.py mp-elastic drawn [--count 420] [--share 0.5] [--done start.parquet ...]

`mp-elastic` is a folder with `materials.csv` and `structures.jsonl`. The script writes these files
to the folder `drawn`:

- `cifs/<material_id>.cif`: spglib's primitive standardised cell. `rhosight data build gpaw` reads
  it back unchanged, so that GPAW finds the full symmetry of the crystal;
- `targets.csv`: the labels, one row per crystal, in the order of the draw;
- `order.csv`: the same crystals and order, with formula, space group, Bravais lattice and atoms.

A crystal can be drawn under these conditions: it has 1 to 6 atoms in the primitive cell; its
Bravais lattice is not face-centred cubic and therefore absent from the bundled mp-fcc; its space
group is the same at the tolerance of the calculation and at the tolerance of the labels; its cell
survives a CIF file unchanged; it has all labels, with plausible values; and all its elements are in
rhosight's table of free atoms and have a PAW data set.

`--share` keeps, in each lattice, only the crystals with the shortest calculations by estimate.

Any prefix of the order is a diverse selection, because each crystal is the best addition to the
previous ones. The next lattice is the one with the fewest crystals relative to its share; the share
is proportional to the square root of the number of available crystals. Within this lattice, the
next crystal has the least-drawn elements, space group and structure type, with some preference for
short calculations. Crystals in a file given by `--done` count as drawn and are not drawn again. The
same input and seed give the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from rhosight.dataset import bravais_lattice, load_dataset, mask_labels
from rhosight.dataset.sources.gpaw import MAGNETIC, find_gpaw
from rhosight.density.crystals import group_mixed_axes
from rhosight.density.free_atoms import list_elements as free_atoms
from rhosight.errors import RhosightError

LARGEST = 6
"""Maximum number of atoms in the primitive cell."""

SYMPREC = {"calculation": 0.01, "labels": 0.1}
"""Tolerances in Å; the defaults of the gpaw source and of space groups in a dataset."""

ROUNDING = 2e-8
"""Rounding of fractional coordinates in a CIF file; GPAW finds symmetry to 1e-7."""

BULK = ["bulk_modulus_vrh", "bulk_modulus_voigt", "bulk_modulus_reuss"]

LABELS = {
    **{name: name for name in ("formation_energy_per_atom", "efermi", "band_gap", *BULK)},
    "shear_modulus_vrh": "shear_modulus_vrh (GPa)",
}
"""Columns of targets.csv by column of materials.csv; a unit in brackets is kept."""

KPOINT_DENSITY = 3.0
"""Density of k-points in Å⁻¹; the default of the gpaw source."""

WEIGHTS = {"elements": 0.4, "prototype": 0.2, "spacegroup": 0.15, "effort": 0.25}
"""Weights of the criteria within a lattice; each ranks the remaining crystals."""


def usable(table: pd.DataFrame) -> pd.Series:
    """Return a mask of crystals with all labels and a plausible bulk modulus."""
    kept, _ = mask_labels(table)
    return kept[list(LABELS)].notna().all(axis=1) & (kept[BULK] > 0).all(axis=1)


def candidates(folder: Path) -> tuple[pd.DataFrame, dict[str, Structure]]:
    """Read the crystals that can be drawn: a table and their standardised cells."""
    table = pd.read_csv(folder / "materials.csv").set_index("material_id")
    known = set(free_atoms()) & paw_data_sets()
    taken = set(load_dataset("mp-fcc").ids)
    table = table[usable(table) & ~table.index.isin(taken)]
    rows, cells = {}, {}
    with open(folder / "structures.jsonl", encoding="utf-8") as file:
        for served in map(json.loads, file):
            material_id = served["material_id"]
            if material_id not in table.index or not set(served["species"]) <= known:
                continue
            structure = Structure(served["lattice"], served["species"], served["frac_coords"])
            row, cell = describe(structure)
            small = row["nsites"] <= LARGEST
            as_served = row["spacegroup"] == table.loc[material_id, "spacegroup_number"]
            if small and as_served and row["lattice"] not in (None, "cF") and survives_cif(cell):
                rows[material_id], cells[material_id] = row, cell
    return pd.DataFrame.from_dict(rows, orient="index").join(table[list(LABELS)]), cells


def describe(structure: Structure) -> tuple[dict, Structure]:
    """Return the criteria of the draw and the cell of the calculation."""
    fine, coarse = (
        SpacegroupAnalyzer(structure, symprec=SYMPREC[name]) for name in ("calculation", "labels")
    )
    cell = fine.get_primitive_standard_structure()
    number = fine.get_space_group_number()
    row = {
        "formula": cell.composition.reduced_formula,
        "spacegroup": number if number == coarse.get_space_group_number() else 0,
        "lattice": bravais_lattice(structure, SYMPREC["labels"]),
        "nsites": len(cell),
        "elements": sorted(element.symbol for element in cell.composition.elements),
        "prototype": f"{number} {cell.composition.anonymized_formula} {len(cell)}",
        "effort": effort(cell),
    }
    return row, cell


def effort(cell: Structure) -> float:
    """Estimate the duration of a calculation, in arbitrary units.

    It is proportional to the k-points that symmetry leaves, spins, volume (plane waves) and atoms
    (bands). As in the build, axes that a rotation mixes have equal numbers of k-points.
    """
    symmetry = SpacegroupAnalyzer(cell, symprec=SYMPREC["calculation"])
    rotations = np.array([op.rotation_matrix for op in symmetry.get_symmetry_operations()])
    rotations = np.unique(np.rint(rotations).astype(int), axis=0)
    grid = np.ceil(KPOINT_DENSITY * np.array(cell.lattice.reciprocal_lattice.abc) - 1e-9)
    for axes in group_mixed_axes(rotations):
        grid[axes] = grid[axes].max()
    kept = len(np.unique(np.concatenate([rotations, -rotations]), axis=0))
    spins = 2 if {site.specie.symbol for site in cell} & set(MAGNETIC) else 1
    return float(max(grid.prod() / kept, 1) * spins * cell.volume * len(cell))


def survives_cif(cell: Structure) -> bool:
    """Return True if a cell is the same after a CIF file.

    pymatgen changes 0.66672 to two thirds but leaves 0.33328, which reduces the symmetry.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen also warns about the change
        read = Structure.from_str(cell.to(fmt="cif"), fmt="cif")
    if len(read) != len(cell) or read.species != cell.species:
        return False
    moved = read.frac_coords - cell.frac_coords
    return bool(np.abs(moved - np.round(moved)).max() < ROUNDING)


def paw_data_sets() -> set[str]:
    """Return the elements with a standard PBE PAW data set of GPAW."""
    folders = [Path(name) for name in find_gpaw().setups]
    return {file.name.split(".")[0] for path in folders for file in path.glob("*.PBE.gz")}


def draw(table: pd.DataFrame, count: int, done: list[str], seed: int) -> list[str]:
    """Return ids in the order of the draw; each is the best addition so far."""
    # the seed decides between crystals of equal rank
    table = table.iloc[np.random.default_rng(seed).permutation(len(table))]
    shares = np.sqrt(table["lattice"].value_counts().sort_index())
    drawn = {name: Counter() for name in ("elements", "prototype", "spacegroup", "lattice")}
    there: set[tuple[str, int]] = set()
    order: list[str] = []

    def add(material_id: str) -> None:
        row = table.loc[material_id]
        drawn["elements"].update(row["elements"])
        for name in ("prototype", "spacegroup", "lattice"):
            drawn[name][row[name]] += 1
        there.add((row["formula"], row["spacegroup"]))

    for material_id in table.index.intersection(done):
        add(material_id)
    left = table.drop(index=done, errors="ignore")
    while len(order) < count and len(left):
        # one polymorph of a formula and space group is enough
        known = [pair in there for pair in zip(left["formula"], left["spacegroup"], strict=True)]
        left = left[~np.array(known)]
        names = [name for name in shares.index if (left["lattice"] == name).any()]
        if not names:
            break
        lattice = min(names, key=lambda name: (drawn["lattice"][name] + 0.5) / shares[name])
        among = left[left["lattice"] == lattice]
        best = badness(among, drawn).idxmin()
        add(best)
        order.append(best)
        left = left.drop(index=best)
    return order


def badness(among: pd.DataFrame, drawn: dict[str, Counter]) -> pd.Series:
    """Score how often the properties of a crystal were drawn, and its effort."""
    measures = {
        "elements": among["elements"].map(lambda row: np.mean([drawn["elements"][e] for e in row])),
        "prototype": among["prototype"].map(lambda name: drawn["prototype"][name]),
        "spacegroup": among["spacegroup"].map(lambda name: drawn["spacegroup"][name]),
        "effort": among["effort"],
    }
    return sum(WEIGHTS[name] * measure.rank(pct=True) for name, measure in measures.items())


def write(out: Path, order: list[str], table: pd.DataFrame, cells: dict[str, Structure]) -> None:
    """Write the CIF files and the two tables."""
    (out / "cifs").mkdir(parents=True, exist_ok=True)
    for material_id in order:
        cells[material_id].to(filename=str(out / "cifs" / f"{material_id}.cif"))
    chosen = table.loc[order].rename_axis("material_id")
    chosen[list(LABELS)].rename(columns=LABELS).to_csv(out / "targets.csv")
    columns = ["formula", "spacegroup", "lattice", "nsites"]
    chosen[columns].to_csv(out / "order.csv")


def summary(order: list[str], table: pd.DataFrame) -> str:
    """Return a text on the diversity of the first 50, 100, 200 and all crystals."""
    lines = ["first lattices groups types elements atoms"]
    for number in sorted({n for n in (50, 100, 200) if n < len(order)} | {len(order)}):
        part = table.loc[order[:number]]
        counts = (
            part["lattice"].nunique(),
            part["spacegroup"].nunique(),
            part["prototype"].nunique(),
            len(set().union(*part["elements"])),
        )
        cells = "{:8} {:6} {:5} {:8}".format(*counts)
        lines.append(f"{number:5} {cells} {part['nsites'].mean():5.2f}")
    counts = table.loc[order, "lattice"].value_counts()
    lines.append(", ".join(f"{name} {count}" for name, count in counts.items()))
    return "\n".join(lines)


def main() -> int:
    """Draw crystals, write the files and print the diversity of the draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder mp-elastic")
    parser.add_argument("out", type=Path, help="output folder; it must not exist")
    parser.add_argument("--count", type=int, default=420)
    parser.add_argument("--share", type=float, default=1.0, help="of each lattice, by effort")
    parser.add_argument(
        "--done",
        type=Path,
        nargs="*",
        default=[],
        help="Parquet datasets of crystals that were drawn before",
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.out.exists():
        raise RhosightError(f"{arguments.out}: the folder already exists. Choose another name")
    done = [
        material_id
        for file in arguments.done
        for material_id in pq.read_table(file, columns=["material_id"])["material_id"].to_pylist()
    ]
    table, cells = candidates(arguments.source)
    ranks = table.groupby("lattice")["effort"].rank(pct=True)
    short = table[(ranks <= arguments.share) | table.index.isin(done)]
    order = draw(short, arguments.count, done, arguments.seed)
    write(arguments.out, order, table, cells)
    print(f"{len(order)} of {len(table)} crystals that can be drawn")
    print(summary(order, table))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RhosightError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
