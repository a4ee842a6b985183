"""Measure what densities add to a model that knows the structures of thousands of crystals.

    python benchmarks/what_densities_add.py folds [--cache descriptors.parquet]
    python benchmarks/what_densities_add.py test

`structure` has learned from 2402 structures, `best` from 344 face-centred cubic crystals with
densities. `folds` asks three questions on the training set, by formula.

Alone: the recipes `best` and `no-dft` learn from `mp-mixed` only, five folds, twice.

Remainder: in each of five folds, twice, `structure` predicts every training material without the
labels of its formula. A Gaussian process learns the errors from the densities, of `mp-fcc` and of
`mp-mixed`, and corrects the predictions of the fold.

Mean: predictions of `structure` and of a recipe for face-centred cubic crystals, each without the
labels of a fold's formulas, are averaged as :class:`rhosight.models.combined.CombinedModel` does.
Intervals are calibrated on four folds and counted in the fifth.

`structure` keeps the hyperparameters that it learned from all labels; recipes are fitted to each
fold. `test` predicts the test set of `mp-fcc`; run it once. `--cache` keeps the descriptors of the
densities.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from rhosight import load_dataset, load_model, load_recipe, split
from rhosight.dataset.dataset import Dataset
from rhosight.dataset.splits import folds, group_labels
from rhosight.evaluation.statistics import compare, repeated_folds
from rhosight.inputs.descriptors.blocks import SPARSE, compute_block_table, to_blocks
from rhosight.metrics import rmse
from rhosight.models.blocks import BlockReader, keep_describable
from rhosight.models.combined import CombinedModel, Pair
from rhosight.models.descriptor_model import DescriptorModel
from rhosight.models.gaussian_process.fitting import fit_descriptors
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.process import GaussianProcess
from rhosight.models.uncertainty import ConformalIntervals

TARGETS = ["formation_energy_per_atom", "efermi", "bulk_modulus_vrh"]
REPEATS = 2
COLUMNS = ["model", "rmse", "baseline_rmse", "relative", "p"]
ROOT = 2
"""Position of the bulk modulus, which `structure` learns as a square root."""
CORRECTIONS: dict[str, Kernel] = {
    "density": Kernel(together=("interstitial",)),
    "density and elements": Kernel(
        alone=("interstitial",), together=("interstitial", "elements", "fractions")
    ),
}


def main(step: str, cache: Path | None) -> None:
    if step == "test":
        print_test()
        return
    structure = load_model("structure")
    elastic = load_dataset("mp-elastic")
    elastic = keep_describable(elastic[split(elastic)[0]], structure.recipe)
    fcc = load_dataset("mp-fcc")
    fcc = fcc[split(fcc)[0]]
    print_alone(load_dataset("mp-mixed"))
    print_means(fcc)
    print_remainder(structure, elastic, fcc, cache)


def print_alone(mixed: Dataset) -> None:
    """Print RMSE of recipes with and without densities that learn from other lattices only."""
    labels = mixed.targets[TARGETS].to_numpy(float)
    parts = list(repeated_folds(mixed, repeats=REPEATS, indices=split(mixed)[0]))
    rows = []
    for name in ("best", "no-dft"):
        recipe = load_recipe(name)
        table = BlockReader(recipe).table(mixed)
        for part in parts:
            predicted = fit_descriptors(recipe, table, labels, part.train)(part.validation)
            true = labels[part.validation]
            rows.append(tabulate(predicted, true, part.validation, name, part.repeat, part.fold))
    print("\nlearned from mp-mixed: RMSE over folds of best, and of no-dft")
    test = compare(pd.concat(rows, ignore_index=True), "best", "no-dft")
    print(test[COLUMNS].round(4).to_string())


def tabulate(
    predicted: np.ndarray, true: np.ndarray, ids: np.ndarray, model: str, repeat: int, fold: int
) -> pd.DataFrame:
    """Return a row for each material and target, as comparisons of models read them."""
    frames = {
        name: pd.DataFrame(values, columns=TARGETS, index=ids).stack()
        for name, values in (("predicted", predicted), ("true", true))
    }
    table = pd.DataFrame(frames).dropna().rename_axis(["material_id", "target"]).reset_index()
    return table.assign(model=model, repeat=repeat, fold=fold)


def print_remainder(
    structure: DescriptorModel, elastic: Dataset, fcc: Dataset, cache: Path | None
) -> None:
    """Print RMSE on held-out crystals with and without a correction by densities."""
    mixed = load_dataset("mp-mixed")
    mixed = mixed[[name for name in mixed.ids if name in elastic]]
    at = pd.Index(elastic.ids).get_indexer([*fcc.ids, *mixed.ids])
    table = read_table((fcc, mixed), cache)
    inputs = to_blocks(table, sorted(set(table["prototype"])))
    labels = elastic.targets[TARGETS].to_numpy(float)[at]
    scaled = labels.copy()
    scaled[:, ROOT] = np.sqrt(labels[:, ROOT])
    groups = np.unique(group_labels(elastic), return_inverse=True)[1]
    (process,) = structure.process.members
    distances = process.distances(process.training_features)
    targets = process._targets[: len(TARGETS)]
    similar = [process.kernel(target.parameters, distances) for target in targets]
    del distances
    rows: list[pd.DataFrame] = []
    for repeat in range(REPEATS):
        for fold, (train, rest) in enumerate(folds(elastic, 5, seed=repeat)):
            known, asked = np.isin(at, train), np.isin(at, rest)
            left_out, predicted = predict_inside(similar, process, train, rest, groups)
            remainder = scaled[known] - left_out[at[known]]
            learn, ask = ({n: b[part] for n, b in inputs.items()} for part in (known, asked))
            found = {"structure": predicted[at[asked]]}
            for name, kernel in CORRECTIONS.items():
                correction = GaussianProcess(kernel.terms, linear=SPARSE).fit(learn, remainder)
                found[name] = found["structure"] + correction.predict_with_std(ask)[0]
            for name, values in found.items():
                own = restore(values)
                rows.append(tabulate(own, labels[asked], at[asked], name, repeat, fold))
    table = pd.concat(rows, ignore_index=True)
    is_fcc = table["material_id"].isin(at[: len(fcc)])
    for title, part in (("face-centred cubic", table[is_fcc]), ("others", table[~is_fcc])):
        count = part["material_id"].nunique()
        print(f"\n{title}, {count} crystals: RMSE over folds with a correction, and without it")
        tests = [compare(part, name, "structure", ratio=0.25) for name in CORRECTIONS]
        print(pd.concat(tests)[COLUMNS].round(4).to_string())


def read_table(datasets: tuple[Dataset, ...], cache: Path | None) -> pd.DataFrame:
    """Return the descriptors of densities, from a file if it is there."""
    if cache and cache.exists():
        return pd.read_parquet(cache)
    kernels = CORRECTIONS.values()
    blocks = sorted({name for kernel in kernels for name in (*kernel.alone, *kernel.together)})
    parts = [compute_block_table(dataset.densities, blocks) for dataset in datasets]
    table = pd.concat(parts, ignore_index=True)
    if cache:
        table.to_parquet(cache)
    return table


def predict_inside(
    kernels: list[np.ndarray],
    process: GaussianProcess,
    train: np.ndarray,
    rest: np.ndarray,
    groups: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict the training set of a fold without formulas, and the rest from all of it.

    ``kernels`` are those of all n materials, one for each target. Both results have the shape (n,
    targets), in the scales of the model, NaN elsewhere.
    """
    inside, outside = (np.full((len(groups), len(TARGETS)), np.nan) for _ in range(2))
    for column, (kernel, target) in enumerate(zip(kernels, process._targets, strict=False)):
        at_known = np.flatnonzero(np.isin(target.rows, train))
        known, labels = target.rows[at_known], target.labels[at_known]
        noise = np.diag(target.noise / target.weights[at_known])
        inverse = np.linalg.inv(kernel[np.ix_(known, known)] + noise)
        centre = inverse @ labels
        mean = kernel[np.ix_(rest, known)] @ centre
        outside[rest, column] = mean * target.scale + target.mean
        for group in np.unique(groups[known]):
            at = np.flatnonzero(groups[known] == group)
            mean = labels[at] - np.linalg.solve(inverse[np.ix_(at, at)], centre[at])
            inside[known[at], column] = mean * target.scale + target.mean
    return inside, outside


def print_means(fcc: Dataset) -> None:
    """Print RMSE and coverage of models and of their means on face-centred cubic crystals."""
    labels, parts = fcc.targets[TARGETS].to_numpy(float), folds(fcc, 5, seed=0)
    rows = {}
    for name in ("best", "no-dft"):
        model = CombinedModel(load_recipe(name)).fit(fcc)
        names = "structure", f"recipe {name}", f"mean of structure and {name}"
        for one, pair in zip(names, model.predict_folds(fcc), strict=True):
            inside, width = cover(labels, pair, parts)
            rows[one] = [*score(pair[0], labels), *inside, *width]
    columns = pd.MultiIndex.from_product([["RMSE", "inside", "width"], TARGETS])
    print(f"\n{len(fcc)} face-centred cubic crystals, left out by folds of formulas")
    print(pd.DataFrame(rows, index=columns).T.round(4).to_string())


def print_test() -> None:
    """Print RMSE on the test set of `mp-fcc`."""
    fcc = load_dataset("mp-fcc")
    test = fcc[split(fcc)[1]]
    labels = test.targets[TARGETS].to_numpy(float)
    rows = {}
    for name in ("best", "no-dft"):
        model = load_model(name)
        parts = {"structure": model.general, f"recipe {name}": model.special, name: model}
        for one, part in parts.items():
            rows[one] = score(part.predict(test)[TARGETS].to_numpy(), labels)
    print(f"\ntest set of mp-fcc, {len(test)} crystals: RMSE")
    print(pd.DataFrame(rows, index=TARGETS).T.round(3).to_string())


def restore(values: np.ndarray) -> np.ndarray:
    """Return values in the targets' units."""
    values = values[:, : len(TARGETS)].copy()
    values[:, ROOT] = np.maximum(values[:, ROOT], 0) ** 2
    return values


def score(predicted: np.ndarray, true: np.ndarray) -> list[float]:
    """Return the RMSE of each target."""
    known = ~np.isnan(true)
    return [rmse(true[k, c], predicted[k, c]) for c, k in enumerate(known.T)]


def cover(true: np.ndarray, pair: Pair, parts: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    """Return share inside, and mean width, of 90 % intervals calibrated on the other folds."""
    low, high = np.full_like(true, np.nan), np.full_like(true, np.nan)
    for train, rest in parts:
        intervals = ConformalIntervals.fit(true[train], pair[0][train], pair[1][train])
        low[rest], high[rest] = intervals(pair[0][rest], pair[1][rest])
    inside = np.where(np.isnan(true), np.nan, (low <= true) & (true <= high))
    return np.nanmean(inside, axis=0), np.nanmean(high - low, axis=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("folds", "test"))
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    main(given.step, given.cache)
