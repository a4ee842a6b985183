"""Combine all calculated densities into one dataset in the form of mp-fcc.

    python pack.py mp-mixed.json mp-mixed.parquet FILE_OR_FOLDER ...

Rows come from Parquet datasets of `rhosight data build gpaw` and from folders with parts of an
unfinished build (`x.parquet.build`). If an id is duplicated, the first row is used. Labels, targets
and the declared test set are those of the bundled `mp-elastic`. `mp-mixed.json` describes the
dataset, as `mp-fcc.json` does. Missing texts are generated, which takes seconds each. A dataset
that this script wrote is also a valid input and already has texts. The same rows give the same
bytes. A density that breaks the symmetry of its crystal is left out: GPAW does not impose an
operation that takes its grid points between others.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from rhosight.dataset import Dataset, load_dataset
from rhosight.density import ChargeDensity
from rhosight.density.crystals import find_symmetry
from rhosight.errors import RhosightError
from rhosight.inputs.text.description import describe
from rhosight.inputs.text.extents import EXTENTS

LABELS = [
    *("formation_energy_per_atom", "efermi", "band_gap", "bulk_modulus_vrh"),
    *("bulk_modulus_voigt", "bulk_modulus_reuss", "shear_modulus_vrh", "split"),
]
"""Columns that are taken from the bundled mp-elastic, the declared test set among them."""

LEVEL = 19
"""zstd compression level, as in finished rhosight datasets."""

ASYMMETRY = 1e-3
"""Largest difference of equivalent Fourier coefficients, as a share of the mean density."""

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


def measure_asymmetry(density: ChargeDensity) -> float:
    """Return the largest difference of equivalent Fourier coefficients by the mean density."""
    grid, size = density.grid("total"), np.array(density.shape)
    amplitudes = np.abs(np.fft.fftn(grid)) / grid.sum()
    half = (size - 1) // 2
    indices = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in half), indexing="ij"), -1)
    indices = indices.reshape(-1, 3)
    values = amplitudes[tuple((indices % size).T)]
    symmetry = find_symmetry(density.structure, [site.specie.Z for site in density.structure])
    worst = 0.0
    for rotation in symmetry.rotations if symmetry else ():
        moved = indices @ rotation
        held = (np.abs(moved) <= half).all(axis=1)
        others = amplitudes[tuple((moved[held] % size).T)]
        worst = max(worst, float(np.abs(others - values[held]).max()))
    return worst


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
    parser.add_argument("about", type=Path, help="JSON: name, attribution, provenance, ...")
    parser.add_argument("out", type=Path)
    parser.add_argument("rows", type=Path, nargs="+")
    arguments = parser.parse_args()
    about = json.loads(arguments.about.read_text(encoding="utf-8"))
    provenance = about.pop("provenance", {})
    elastic = load_dataset("mp-elastic")
    densities, texts, labels = {}, {}, {}
    for part in parts_of(arguments.rows):
        for number, material_id in enumerate(part.ids):
            if material_id in densities:
                continue
            density = part.densities[number]
            if (asymmetry := measure_asymmetry(density)) > ASYMMETRY:
                print(f"{material_id} is left out: asymmetric by {asymmetry:.1e}", file=sys.stderr)
                continue
            kept = {k: v for k, v in density.provenance.items() if k not in OF_THE_BUILD}
            densities[material_id] = replace(density, provenance={**kept, **provenance})
            texts[material_id] = texts_of(part, number)
            figures = part.table.filter(like="dft_").iloc[number].to_dict()
            labels[material_id] = elastic.table.loc[material_id, LABELS].to_dict() | figures
    order = sorted(densities)
    table = pd.DataFrame.from_dict({i: labels[i] for i in order}, orient="index")
    about["description"] = f"{len(order)} {about['description']}"
    dataset = Dataset.from_densities([densities[i] for i in order], table, texts, about)
    dataset = dataset.with_targets(list(elastic.targets))
    dataset.to_parquet(arguments.out, compression_level=LEVEL)
    print(f"{dataset}: {arguments.out}, {arguments.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RhosightError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
