"""Make the bundled dataset `mp-elastic` from its table of structures and its table of labels.

    python benchmarks/make_mp_elastic.py mp-elastic/ src/rhosight/data/mp-elastic.parquet

The folder holds `structures.jsonl` and `materials.csv`. Attribution and provenance come from
`mp-elastic.json` beside the result. The same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa

from rhosight.dataset.dataset import Dataset
from rhosight.dataset.packing import PACKED_LEVEL, load_dataset
from rhosight.dataset.sources.structures import Structures
from rhosight.dataset.sources.tables import read_targets
from rhosight.dataset.splits import split
from rhosight.density.bare_crystal import BareCrystal

TARGETS = ("band_gap",)
"""Labels of the schema that are targets here."""
TEST_FRACTION = 0.15
LABELS = ("shear_modulus_voigt", "shear_modulus_reuss")
"""Numbers that are no targets: bounds of one."""


def main(folder: Path, out: Path) -> None:
    about = json.loads(out.with_suffix(".json").read_text("utf-8"))
    provenance = about.pop("provenance")
    source = Structures(folder / "structures.jsonl")
    labels, _ = read_targets(folder / "materials.csv")
    crystals = [
        BareCrystal(source.read(name).crystal.structure, name, provenance) for name in source.ids()
    ]
    labels = labels.drop(columns=["nsites", "is_metal"])
    labels["split"] = divide(labels)
    dataset = Dataset.from_densities(crystals, labels, about=about).with_targets(TARGETS)
    table: pa.Table = dataset._table
    for name in LABELS:
        at = table.column_names.index(name)
        field = table.schema.field(at)
        about_field = {**(field.metadata or {}), b"role": b"label"}
        table = table.set_column(at, field.with_metadata(about_field), table[name])
    Dataset(table).to_parquet(out, PACKED_LEVEL)
    print(f"{out}: {len(dataset)} materials, {len(dataset.masked)} labels masked")


def divide(labels: pd.DataFrame) -> pd.Series:
    """Return the part of each material, so that no formula is in both.

    The test set holds that of mp-fcc with all polymorphs, and a part of the formulas that mp-fcc
    lacks, so that the training set holds all that mp-fcc's does.
    """
    fcc = load_dataset("mp-fcc")
    test = set(fcc.table["formula"].iloc[split(fcc)[1]])
    others = labels[~labels["formula"].isin(fcc.table["formula"])]
    names = sorted(set(others["formula"]), key=lambda name: hashlib.sha256(name.encode()).digest())
    wanted = round(TEST_FRACTION * len(others))
    sizes = others["formula"].value_counts()
    for name in names:
        if wanted <= 0:
            break
        test.add(name)
        wanted -= int(sizes[name])
    return labels["formula"].isin(test).map({True: "test", False: "train"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
