"""Combine all calculated densities into one dataset in the form of mp-fcc.

    python pack.py mp-elastic mp-mixed.json mp-mixed.parquet FILE_OR_FOLDER ... [--label NAME ...]

Rows come from Parquet datasets of `rhosight data build gpaw` and from folders with parts of an
unfinished build (`x.parquet.build`). If an id is duplicated, the first row is used. Labels are read
again from the folder `mp-elastic`, and implausible values are masked. `mp-mixed.json` describes the
dataset, as `mp-fcc.json` does. `--label` turns further columns of `mp-elastic`, such as
shear_modulus_vrh, into targets. Missing texts are generated, which takes seconds each. A dataset
that this script wrote is also a valid input and already has texts. The same rows give the same
bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

from rhosight.dataset import Dataset
from rhosight.errors import RhosightError
from rhosight.inputs.text.description import describe
from rhosight.inputs.text.extents import EXTENTS

LABELS = [
    *("formation_energy_per_atom", "efermi", "bulk_modulus_vrh"),
    *("bulk_modulus_voigt", "bulk_modulus_reuss", "band_gap"),
]

LEVEL = 19
"""zstd compression level, as in finished rhosight datasets."""

OF_THE_BUILD = ("build", "integrals")
"""Provenance fields of unfinished builds only; the integrals are computed again."""


def parts_of(paths: list[Path]) -> list[Dataset]:
    """Open every file separately, because the columns of parts differ."""
    files = []
    for path in paths:
        # files whose names begin with a dot are still being written
        found = [f for f in sorted(path.glob("*.parquet")) if f.name[0] != "."]
        files += found if path.is_dir() else [path]
    return [Dataset.from_parquet(file) for file in files]


def texts_of(part: Dataset, number: int) -> dict[str, str | None]:
    """Return the texts of a row and generate missing ones where possible."""
    texts = part.texts.iloc[number].to_dict()
    for extent in EXTENTS:
        if not isinstance(texts.get(extent), str):
            try:
                texts[extent] = describe(part.structures[number], extent, part.ids[number])
            except RhosightError as error:
                print(error, file=sys.stderr)
                texts[extent] = None
    return texts


def main() -> int:
    """Pack the dataset and print its contents."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder mp-elastic")
    parser.add_argument("about", type=Path, help="JSON: name, attribution, provenance, ...")
    parser.add_argument("out", type=Path)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--label", nargs="*", default=[], help="further columns of mp-elastic")
    arguments = parser.parse_args()
    about = json.loads(arguments.about.read_text(encoding="utf-8"))
    provenance = about.pop("provenance", {})
    served = pd.read_csv(arguments.source / "materials.csv").set_index("material_id")
    densities, texts, labels = {}, {}, {}
    for part in parts_of(arguments.rows):
        for number, material_id in enumerate(part.ids):
            if material_id in densities:
                continue
            density = part.densities[number]
            kept = {k: v for k, v in density.provenance.items() if k not in OF_THE_BUILD}
            densities[material_id] = replace(density, provenance={**kept, **provenance})
            texts[material_id] = texts_of(part, number)
            figures = part.table.filter(like="dft_").iloc[number].to_dict()
            wanted = served.loc[material_id, [*LABELS, *arguments.label]].to_dict()
            labels[material_id] = {**wanted, **figures}
    order = sorted(densities)
    table = pd.DataFrame.from_dict({i: labels[i] for i in order}, orient="index")
    about["description"] = f"{len(order)} {about['description']}"
    dataset = Dataset.from_densities([densities[i] for i in order], table, texts, about)
    dataset.to_parquet(arguments.out, compression_level=LEVEL)
    print(f"{dataset}: {arguments.out}, {arguments.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RhosightError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
