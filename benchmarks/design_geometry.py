"""Measure what the geometry of the search does to predictions.

    python benchmarks/design_geometry.py [--chgnet]

The test crystals of mp-fcc are rebuilt from their structure types with volumes of a model that was
trained without their formulas, and predicted by no-dft, beside their own cells.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pandas as pd

import rhosight
from rhosight.density.structure_json import parse_structure_json
from rhosight.design.geometry import Pairs
from rhosight.design.prototypes import load_library, read_structure_texts
from rhosight.design.relaxation import relax_volume
from rhosight.design.space import Candidate, Space, find_nearest_example
from rhosight.design.volume import MAX_ATOMS, VolumeModel

TARGETS = ("formation_energy_per_atom", "efermi", "bulk_modulus_vrh")


def main() -> None:
    """Print errors of volumes and of predictions."""
    dataset = rhosight.load_dataset("mp-fcc")
    test = dataset[rhosight.split(dataset)[1]]
    formulas = {structure.composition.reduced_formula for structure in test.structures}
    crystals = [parse_structure_json(text, name) for name, text in read_structure_texts().items()]
    volumes = VolumeModel.fit(
        [
            c
            for c in crystals
            if len(c) <= MAX_ATOMS and c.composition.reduced_formula not in formulas
        ]
    )
    library = load_library()
    space = Space(library, [])
    known = {e.material_id: (p, e) for p in library.prototypes for e in p.examples}
    rebuilt = {}
    for name in test.ids:
        if name not in known:
            continue
        prototype, example = known[name]
        # the shape of another crystal of the type, where there is one
        others = tuple(e for e in prototype.examples if e != example) or prototype.examples
        number = prototype.examples.index(
            others[find_nearest_example(_replace(prototype, others), example.elements)]
        )
        candidate = Candidate(prototype, example.elements, number)
        cell = library.template(prototype, candidate.template)
        pairs = Pairs.of(cell, library.roles(prototype, candidate.template))
        (volume,) = volumes.predict(pairs, [example.elements])
        rebuilt[name] = space.build(candidate, float(volume))
    own = {name: test[name].structure for name in rebuilt}
    sets = {"own cell": own, "volume model": rebuilt}
    if "--chgnet" in sys.argv:
        sets["chgnet"] = {name: relax_volume(structure) for name, structure in rebuilt.items()}
    model = rhosight.load_model("no-dft")
    labels = test[list(rebuilt)].targets[list(TARGETS)].set_index(pd.Index(rebuilt))
    reference = model.predict(own)
    for label, structures in sets.items():
        ratio = [
            np.log(s.volume / len(s) / (own[name].volume / len(own[name])))
            for name, s in structures.items()
        ]
        predicted = model.predict(structures)
        print(f"{label}: {len(structures)} crystals")
        print(
            f"  volume: rms {100 * np.sqrt(np.mean(np.square(ratio))):.1f} %, "
            f"median {100 * np.median(np.abs(ratio)):.1f} %"
        )
        for target in TARGETS:
            error = (predicted[target] - labels[target]).dropna()
            shift = (predicted[target] - reference[target]).abs().median()
            print(
                f"  {target}: RMSE {np.sqrt((error**2).mean()):.3f}, "
                f"median {error.abs().median():.3f}, shifted by {shift:.3f}"
            )


def _replace(prototype, examples):

    return replace(prototype, examples=examples)


if __name__ == "__main__":
    main()
