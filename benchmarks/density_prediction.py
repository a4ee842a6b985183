"""Errors of predicted charge densities, and the training of the bundled model.

    python benchmarks/density_prediction.py train FOLDER   # on the training set of mp-fcc
    python benchmarks/density_prediction.py calibrate FOLDER   # the bundled one, for new types
    python benchmarks/density_prediction.py test           # the bundled model on the test set, once
    python benchmarks/density_prediction.py map            # errors where the map expects them?
    python benchmarks/density_prediction.py recorded       # its errors on folds, for new systems
    python benchmarks/density_prediction.py mixed          # the bundled model on other lattices
    python benchmarks/density_prediction.py folds --groups prototype
    python benchmarks/density_prediction.py curve          # error by number of training crystals
    python benchmarks/density_prediction.py speed          # CPU time and memory of 48×48×48 points
    python benchmarks/density_prediction.py properties     # of predicted densities, two models

Errors are ∫|ρ − ρ̂| in percent of ∫ρ; "outside" is beyond 1.1 Å from all nuclei.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Lattice, Structure

import rhosight
from rhosight.dataset import Dataset
from rhosight.dataset.selection import bravais_lattice
from rhosight.dataset.splits import folds, split
from rhosight.density.crystals import list_symbols
from rhosight.ecd.examples import collect_examples
from rhosight.ecd.properties import element_properties
from rhosight.ecd.scores import compute_errors, summarise
from rhosight.ecd.training import TrainingSettings, predict_points, train_network
from rhosight.inputs.descriptors.composition import prototype_label
from rhosight.models.loading import load_recipe, model_for


def load() -> tuple[Dataset, Dataset]:
    dataset = rhosight.load_dataset("mp-fcc")
    train, test = split(dataset)
    return dataset[train], dataset[test]


def report(label: str, step: int, steps: int) -> None:
    if step in (1, steps) or step % 100 == 0:
        print(f"{label}: {step} of {steps}", flush=True)


def print_row(name: str, row: dict[str, float]) -> None:
    print(
        f"{name:24s} {row['crystals']:4d} crystals: mean {row['mean']:.2f}, median "
        f"{row['median']:.2f}, 90 % below {row['p90']:.2f}, outside {row['outside']:.2f}; free "
        f"atoms {row['promolecule']:.2f} and {row['promolecule_outside']:.2f}; better for "
        f"{100 * row['better']:.1f} %; electrons {row['electrons']:.2f}",
        flush=True,
    )


def train(folder: Path) -> None:
    training, _ = load()
    began = time.monotonic()
    model = rhosight.DensityModel().fit(training, progress=report)
    model.save_pretrained(folder)
    print(f"{time.monotonic() - began:.0f} s")
    print_row("folds by formula", model.scores["folds"])


def calibrate(folder: Path) -> None:
    """Write the bundled model with newly calibrated errors of new structure types."""
    training, _ = load()
    model = rhosight.DensityModel.from_pretrained("density")
    model.calibrate_new_types(training, report)
    assert model.reliability is not None
    model.save_pretrained(folder)
    print_row("new structure types", model.scores["new_types"])
    print("expected error and its bound of 90 %, factors:", *model.reliability.new_type)


def test() -> None:
    _, testing = load()
    model = rhosight.DensityModel.from_pretrained("density")
    errors = model.score(testing)
    print_row("test set", model.scores["test"])
    print_coverage(model, testing, errors)
    by_element = defaultdict(list)
    for number, error in enumerate(errors["error"]):
        for symbol in set(list_symbols(testing.structures[number])):
            by_element[symbol].append(error)
    for symbol, values in sorted(by_element.items(), key=lambda item: -np.mean(item[1])):
        print(f"{symbol:3s} {len(values):3d} {100 * np.mean(values):.2f}")


def print_coverage(model: rhosight.DensityModel, dataset: Dataset, errors: pd.DataFrame) -> None:
    expected = np.array(
        [
            model.reliability.expect(structure, size)
            for structure, size in zip(dataset.structures, errors["size"], strict=True)
        ]
    )
    inside = np.mean(errors["error"].to_numpy() <= expected[:, 1])
    print(
        f"below the bound of 90 %: {100 * inside:.0f} %; expected error, mean "
        f"{100 * expected[:, 0].mean():.2f}",
        flush=True,
    )


def check_map() -> None:
    """Print how much of the errors of test crystals lies where the error map expects them."""
    _, testing = load()
    model = rhosight.DensityModel.from_pretrained("density")
    shares: dict[float, list[tuple[float, float, float]]] = {0.1: [], 0.25: [], 0.5: []}
    for density in testing.densities:
        result = model.predict(density.structure, grid=density.shape)
        off = np.abs(density.grid("total").astype(float) - result.density.grid("total")).ravel()
        expected = result.error_map.ravel()
        for part, rows in shares.items():
            count = round(part * len(off))
            rows.append(
                (
                    off[np.argsort(-expected)[:count]].sum() / off.sum(),
                    np.sort(expected)[-count:].sum() / expected.sum(),
                    np.sort(off)[-count:].sum() / off.sum(),
                )
            )
    for part, rows in shares.items():
        held, said, most = 100 * np.mean(rows, axis=0)
        print(
            f"{100 * part:.0f} % of the cell, where the largest errors are expected: {held:.0f} % "
            f"of the error (expected {said:.0f} %, at most possible {most:.0f} %)"
        )


def recorded() -> None:
    """Print the out-of-fold errors of crystals of a kind that no training crystal had."""
    training, _ = load()
    model = rhosight.DensityModel.from_pretrained("density")
    errors = model.errors.loc[list(training.ids)]
    structures = list(training.structures)
    for name, describe in (
        ("chemical system", lambda structure: structure.composition.chemical_system),
        ("structure type", prototype_label),
    ):
        kinds = [describe(structure) for structure in structures]
        is_new = np.zeros(len(kinds), dtype=bool)
        for rest, held in folds(training):
            known = {kinds[i] for i in rest}
            is_new[held] = [kinds[i] not in known for i in held]
        print_row(f"new {name}", summarise(errors[is_new]))
        print_row(f"known {name}", summarise(errors[~is_new]))


def mixed() -> None:
    """Print the errors of crystals that are not face-centred cubic, by lattice and by elements."""
    dataset = rhosight.load_dataset("mp-mixed")
    model = rhosight.DensityModel.from_pretrained("density")
    errors = model.score(dataset, report)
    print_row("all", model.scores["test"])
    print_coverage(model, dataset, errors)
    structures = list(dataset.structures)
    lattices = np.array([bravais_lattice(structure) or "none" for structure in structures])
    new = [set(list_symbols(one)) - set(model.reliability.elements) for one in structures]
    for lattice in sorted(set(lattices)):
        print_row(lattice, summarise(errors[lattices == lattice]))
    is_new = np.array([bool(symbols) for symbols in new])
    for label, rows in (("known elements", ~is_new), ("a new element", is_new)):
        if rows.any():
            print_row(label, summarise(errors[rows]))


def cross_validate(groups: str, settings: TrainingSettings, only: int) -> None:
    training, _ = load()
    examples = collect_examples(training.densities, element_properties(), report)
    tables = []
    for number, (rest, held) in enumerate(folds(training, groups=groups)[:only]):
        network = train_network(examples, rest, settings, 1000 * number, report)
        rows = examples.points_of(held)
        tables.append(compute_errors(examples, rows, predict_points(network, examples, rows)))
        print_row(f"{groups}, folds to {number + 1}", summarise(pd.concat(tables)))


def curve(settings: TrainingSettings) -> None:
    training, _ = load()
    examples = collect_examples(training.densities, element_properties(), report)
    rest, held = folds(training)[0]
    rows = examples.points_of(held)
    order = np.random.default_rng(0).permutation(rest)
    for count in (35, 70, 140, len(rest)):
        network = train_network(examples, order[:count], settings, 0, report)
        errors = compute_errors(examples, rows, predict_points(network, examples, rows))
        print_row(f"{count} crystals", summarise(errors))


def properties() -> None:
    """Compare predictions from SCF, predicted and free atoms' densities, and `no-dft`."""
    training, testing = load()
    model = rhosight.DensityModel.from_pretrained("density")
    structures = dict(zip(testing.ids, testing.structures, strict=True))
    no_dft = rhosight.load_model("no-dft").special
    print_scores("no-dft", testing, {"none": no_dft.predict(structures)})
    densities: dict[str, list] = {"SCF": list(testing.densities), "predicted": [], "free atoms": []}
    for density in densities["SCF"]:
        predicted = model.predict_density(density.structure, grid=density.shape)
        free = predicted.grid("promolecule")
        for name, grids in (
            ("predicted", dict(predicted.grids)),
            ("free atoms", {"total": free, "difference": 0 * free}),
        ):
            densities[name].append(rhosight.ChargeDensity(density.structure, grids, density.name))
    for title, reader in (
        ("best", rhosight.load_model("best").special),
        ("image+text", model_for(load_recipe("image+text")).fit(training)),
    ):
        tables = {
            name: reader.predict(dict(zip(testing.ids, listed, strict=True)), report)
            for name, listed in densities.items()
        }
        print_scores(title, testing, tables)


def print_scores(title: str, testing: Dataset, tables: dict[str, pd.DataFrame]) -> None:
    """Print errors of a model that read densities of several kinds; the first is the reference."""
    reference = next(iter(tables.values()))
    for name, table in tables.items():
        for target in table.columns.intersection(testing.targets.columns):
            true = testing.targets[target].dropna()
            off = table.loc[true.index, target] - true
            r2 = 1 - (off**2).sum() / ((true - true.mean()) ** 2).sum()
            moved = table.loc[true.index, target] - reference.loc[true.index, target]
            print(
                f"{title:10s} {name:10s} {target:28s} R² {r2:.3f}, RMSE "
                f"{np.sqrt((off**2).mean()):.4f}, moved {np.sqrt((moved**2).mean()):.4f}",
                flush=True,
            )


def speed() -> None:
    """Print CPU time and peak memory for a cell of ten atoms with and without symmetry."""
    model = rhosight.DensityModel.from_pretrained("density")
    corundum = Structure.from_spacegroup(
        "R-3c", Lattice.hexagonal(4.76, 12.99), ["Al", "O"], [[0, 0, 0.352], [0.306, 0, 0.25]]
    ).get_primitive_structure()
    displaced = corundum.copy()
    moves = np.random.default_rng(0).normal(0, 0.05, (len(corundum), 3))
    for number, move in enumerate(moves):
        displaced.translate_sites(number, move, frac_coords=False)
    for name, crystal in (("12 operations", corundum), ("no symmetry", displaced)):
        for attempt in ("first", "second"):
            began = time.process_time()
            model.predict_density(crystal, grid=(48, 48, 48))
            print(f"{name}, {attempt} time: {time.process_time() - began:.2f} s of CPU time")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {memory / 2**20:.2f} GB")


PLAIN = {
    "test": test,
    "map": check_map,
    "recorded": recorded,
    "mixed": mixed,
    "speed": speed,
    "properties": properties,
}
WITH_FOLDER = {"train": train, "calibrate": calibrate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=(*WITH_FOLDER, *PLAIN, "folds", "curve"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--groups", default="formula", choices=("formula", "chemsys", "prototype"))
    parser.add_argument("--steps", type=int, default=TrainingSettings.steps)
    parser.add_argument("--only", type=int, default=5, help="Folds to run.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = TrainingSettings(steps=options.steps)
    if options.what in WITH_FOLDER:
        if options.folder is None:
            parser.error("name the folder of the model")
        WITH_FOLDER[options.what](options.folder)
    elif options.what == "folds":
        cross_validate(options.groups, settings, options.only)
    elif options.what == "curve":
        curve(settings)
    else:
        PLAIN[options.what]()


if __name__ == "__main__":
    main()
