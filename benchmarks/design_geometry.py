"""Measure what the geometry of the search does to predictions.

    python benchmarks/design_geometry.py [--chgnet]
    python benchmarks/design_geometry.py --dataset mp-elastic --model structure --soft 60 --chgnet

The test crystals of a dataset are rebuilt from their structure types with volumes of a model that
was trained without their formulas, and predicted by a model, beside their own cells. With --soft
these are the first crystals of types whose shape is not fixed by symmetry, of at most 8 atoms.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd

import rhosight
from rhosight.density.structure_json import parse_structure_json
from rhosight.design.front import relax
from rhosight.design.geometry import Pairs
from rhosight.design.prototypes import load_library, read_structure_texts
from rhosight.design.space import Candidate, Space, find_nearest_example
from rhosight.design.volume import MAX_ATOMS, VolumeModel

TARGETS = ("formation_energy_per_atom", "efermi", "bulk_modulus_vrh")


def main() -> None:
    """Print errors of volumes and of predictions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="mp-fcc")
    parser.add_argument("--model", default="no-dft")
    parser.add_argument("--soft", type=int, default=0, help="number of crystals; 0: all, any type")
    parser.add_argument("--chgnet", action="store_true", help="relax with CHGNet, too")
    arguments = parser.parse_args()
    dataset = rhosight.load_dataset(arguments.dataset)
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
        small = not prototype.is_rigid and sum(prototype.counts) <= 8
        if arguments.soft and (not small or len(rebuilt) >= arguments.soft):
            continue
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
    if arguments.chgnet:
        sets["chgnet"] = {name: relax(structure) for name, structure in rebuilt.items()}
    loaded = rhosight.load_model(arguments.model)
    model = getattr(loaded, "special", loaded)  # of `no-dft` the part that knows mp-fcc
    labels = test[list(rebuilt)].targets[list(TARGETS)].set_index(pd.Index(rebuilt))
    reference = model.predict(own)
    for label, structures in sets.items():
        ratio = [
            np.log(s.volume / len(s) / (own[name].volume / len(own[name])))
            for name, s in structures.items()
        ]
        ratios = [_ratios(s) / _ratios(own[name]) for name, s in structures.items()]
        shape = np.concatenate([np.log(one) for one in ratios])
        predicted = model.predict(structures)
        print(f"{label}: {len(structures)} crystals")
        print(f"  ratios of the cell's edges: rms {100 * np.sqrt(np.mean(shape**2)):.1f} %")
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


def _ratios(structure):
    """Return the sorted edges of the reduced cell, divided by their geometric mean."""
    edges = np.sort(structure.get_reduced_structure().lattice.abc)
    return edges / np.prod(edges) ** (1 / 3)


def _replace(prototype, examples):

    return replace(prototype, examples=examples)


if __name__ == "__main__":
    main()
