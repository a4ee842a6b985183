"""Scores of models of structures on crystals of all lattices (`mp-elastic`).

    python benchmarks/any_crystal.py folds scores.csv [--repeats 2] [--cache descriptors.parquet]
    python benchmarks/any_crystal.py test MODEL scores.csv
    python benchmarks/any_crystal.py groups scores.csv
    python benchmarks/any_crystal.py curve scores.csv [--cache descriptors.parquet]

`folds` compares the recipe `structure` with composition (Magpie's statistics, volume, structure
type, lattice) in three forms, on five folds of the training set by formula. `test` scores a saved
model on the test set, by lattice system, number of atoms, chemistry and structure type, and on that
of mp-fcc; run it once. `groups` predicts each training material by `structure` without the labels
of its formula, of its chemical system or of its structure type, with the hyperparameters of all
labels. `curve` learns from parts of the training set. Moduli are scored in GPa and
as logarithms. Descriptors of all crystals take minutes; `--cache` keeps them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor

from rhosight import load_dataset, load_model, load_recipe, split
from rhosight.dataset.dataset import Dataset
from rhosight.dataset.splits import Groups, folds, group_labels
from rhosight.inputs.descriptors.blocks import compute_block_table, to_blocks
from rhosight.inputs.descriptors.environments import name_system
from rhosight.metrics import r2_score, rmse
from rhosight.models.blocks import keep_describable
from rhosight.models.descriptor_model import DescriptorModel
from rhosight.models.gaussian_process.fitting import make_committee, select_types
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.recipe import DescriptorRecipe

RECIPE = "structure"
BASELINE = ("magpie", "volume", "prototype", "lattice")
FLEXIBLE = Kernel(together=BASELINE)
TREES = 200
ROOT = 1.0
"""GPa^½; smallest root of a bulk modulus whose logarithm is scored."""


def load_training_set(recipe: DescriptorRecipe) -> Dataset:
    dataset = load_dataset("mp-elastic")
    return keep_describable(dataset[split(dataset)[0]], recipe)


def read_table(dataset: Dataset, cache: Path | None, blocks: tuple[str, ...]) -> pd.DataFrame:
    """Return the descriptors of all materials, from a file if it holds them."""
    if cache and cache.exists():
        table = pd.read_parquet(cache).set_index("material_id").loc[dataset.ids]
        return table.reset_index(drop=True)
    table = compute_block_table(dataset.crystals, blocks)
    if cache:
        table.assign(material_id=dataset.ids).to_parquet(cache)
    return table


def fit_trees(features: pd.DataFrame, labels: np.ndarray) -> Callable[[pd.DataFrame], np.ndarray]:
    """Fit trees to each target; return a function that predicts."""
    models = []
    for column in labels.T:
        known = ~np.isnan(column)
        model = ExtraTreesRegressor(TREES, random_state=0)
        models.append(model.fit(features[known], column[known]))
    return lambda rows: np.column_stack([model.predict(rows) for model in models])


def join(blocks: dict[str, pd.DataFrame], names: tuple[str, ...]) -> np.ndarray:
    return np.hstack([blocks[name].to_numpy(float) for name in names])


def predict_all(
    recipe: DescriptorRecipe, table: pd.DataFrame, labels: np.ndarray, part: tuple
) -> dict[str, np.ndarray]:
    """Return model → predictions of the rest, in the scales of the recipe."""
    train = part[0]
    types = select_types(table["prototype"].iloc[train])[0]
    known, asked = (to_blocks(table.iloc[rows], types) for rows in part)
    own = make_committee(recipe, known).fit(known, labels[train])
    baseline = recipe.model_copy(update={"kernels": (FLEXIBLE,)})
    kernel = make_committee(baseline, known).fit(known, labels[train]).predict_with_std(asked)[0]
    trees = fit_trees(join(known, BASELINE), labels[train])(join(asked, BASELINE))
    return {
        RECIPE: own.predict_with_std(asked)[0],
        "composition-kernel": kernel,
        "composition-trees": trees,
        "composition-average": (kernel + trees) / 2,
    }


def run_folds(args: argparse.Namespace) -> pd.DataFrame:
    recipe = load_recipe(RECIPE)
    dataset = load_training_set(recipe)
    table = read_table(dataset, args.cache, recipe.blocks)
    labels = recipe.target_scales.learn(dataset.targets[list(recipe.targets)].to_numpy(float))
    rows = []
    for repeat in range(args.repeats):
        for number, part in enumerate(folds(dataset, 5, seed=repeat)):
            started = time.process_time()
            for name, values in predict_all(recipe, table, labels, part).items():
                for column, target in enumerate(recipe.targets):
                    true = labels[part[1], column]
                    known = ~np.isnan(true)
                    pair = true[known], values[known, column]
                    where = repeat, number
                    rows.append((name, target, *where, rmse(*pair), r2_score(*pair), len(true)))
                    if (recipe.scales or {}).get(target) == "sqrt":  # what the bounds are about
                        logs = [2 * np.log10(np.maximum(part, ROOT)) for part in pair]
                        row = rmse(*logs), r2_score(*logs), len(true)
                        rows.append((name, f"log10 {target}", *where, *row))
            print(f"repeat {repeat}, fold {number}: {time.process_time() - started:.0f} s")
            columns = ["model", "target", "repeat", "fold", "rmse", "r2", "n"]
            scores = pd.DataFrame(rows, columns=columns)
            scores.to_csv(args.out, index=False)
    means = scores.pivot_table("rmse", "target", "model")
    means["strongest"] = means.drop(columns=RECIPE).min(axis=1)
    means["lower by %"] = 100 * (1 - means[RECIPE] / means["strongest"])
    print(means.round(4).to_string())
    return scores


def run_test(args: argparse.Namespace) -> None:
    model = load_model(args.model)
    assert isinstance(model, DescriptorModel)
    elastic, fcc = load_dataset("mp-elastic"), load_dataset("mp-fcc")
    rows = []
    for name, dataset in (("mp-elastic", elastic), ("mp-fcc", fcc)):
        if model.uses_density and not dataset.has_density.all():
            continue
        test = keep_describable(dataset[split(dataset)[1]], model.recipe)
        started = time.process_time()
        table = model.predict_intervals(test)
        spent = (time.process_time() - started) / len(test)
        print(f"{name}: {spent:.2f} s a material, {table['outside'].notna().mean():.0%} outside")
        groups = describe(test, elastic[split(elastic)[0]])
        for target in model.targets:
            if target not in test.targets:
                continue
            scores = score(test.targets[target], table, target, groups)
            rows.append(scores.assign(dataset=name, target=target))
    scores = pd.concat(rows)
    scores.to_csv(args.out, index=False)
    print(scores.round(3).to_string())


def describe(dataset: Dataset, training: Dataset) -> pd.DataFrame:
    """Return the groups of each material: lattice system, size, chemistry, structure type."""
    from rhosight.density.crystals import find_symmetry
    from rhosight.inputs.descriptors.composition import prototype_label

    groups = []
    known = {prototype_label(structure) for structure in training.structures}
    anions = {"O": "oxide", "S": "chalcogenide", "Se": "chalcogenide", "Te": "chalcogenide"}
    anions |= dict.fromkeys(("F", "Cl", "Br", "I"), "halide")
    anions |= dict.fromkeys(("N", "P", "As", "Sb", "C", "B", "H"), "other anion")
    for structure in dataset.structures:
        data = find_symmetry(structure, [site.specie.Z for site in structure], 0.1)
        system = name_system(data.number, data.international) if data else "triclinic"
        symbols = {str(element) for element in structure.composition}
        found = [anions[symbol] for symbol in anions if symbol in symbols]
        atoms = len(structure)
        groups.append(
            {
                "all": "all",
                "lattice system": system,
                "atoms": "1-4" if atoms < 5 else "5-12" if atoms < 13 else "13-",
                "chemistry": found[0] if found else "metal",
                "structure type": "known" if prototype_label(structure) in known else "unknown",
            }
        )
    return pd.DataFrame(groups, index=dataset.ids)


def score(true: pd.Series, table: pd.DataFrame, target: str, groups: pd.DataFrame) -> pd.DataFrame:
    """Return RMSE, R², coverage and number of labels of each group."""
    rows = []
    for kind in groups:
        for value, ids in groups.groupby(kind).groups.items():
            known = true.loc[ids].dropna()
            part = table.loc[known.index]
            if len(known) < 2:
                continue
            inside = known.between(part[f"{target}_low"], part[f"{target}_high"]).mean()
            row = {"group": kind, "value": value, "n": len(known)}
            row |= {"rmse": rmse(known.to_numpy(), part[target].to_numpy())}
            row |= {"r2": r2_score(known.to_numpy(), part[target].to_numpy())}
            if "modulus" in target:
                logs = np.log10(known.to_numpy()), np.log10(part[target].to_numpy())
                row["rmse_log10"] = rmse(*logs)
            rows.append(row | {"inside": inside})
    return pd.DataFrame(rows)


def run_groups(args: argparse.Namespace) -> None:
    """Leave out formulas, chemical systems and structure types of the training set."""
    model = load_model(RECIPE)
    assert isinstance(model, DescriptorModel)
    dataset = load_training_set(model.recipe)
    labels = dataset.targets[list(model.targets)]
    kinds: tuple[Groups, ...] = ("formula", "chemsys", "prototype")
    rows = []
    for kind in kinds:
        groups = np.unique(group_labels(dataset, kind), return_inverse=True)[1]
        mean, half = model.in_units(*model.process.leave_out(groups))
        for column, target in enumerate(model.targets):
            known = labels[target].notna().to_numpy()
            true, found = labels[target].to_numpy()[known], mean[known, column]
            inside = np.mean(np.abs(true - found) <= half[known, column])
            row = (kind, len(np.unique(groups)), target, rmse(true, found), r2_score(true, found))
            rows.append((*row, inside))
    columns = ["left out", "groups", "target", "rmse", "r2", "inside"]
    scores = pd.DataFrame(rows, columns=columns)
    scores.to_csv(args.out, index=False)
    print(scores.round(3).to_string())


def run_curve(args: argparse.Namespace) -> None:
    """Learn from growing parts of four folds and score the fifth."""
    recipe = load_recipe(RECIPE)
    dataset = load_training_set(recipe)
    table = read_table(dataset, args.cache, recipe.blocks)
    labels = recipe.target_scales.learn(dataset.targets[list(recipe.targets)].to_numpy(float))
    train, rest = folds(dataset, 5, seed=0)[0]
    order = np.random.default_rng(0).permutation(train)
    rows = []
    for count in (200, 400, 800, 1200, len(train)):
        part = np.sort(order[:count])
        types = select_types(table["prototype"].iloc[part])[0]
        known, asked = (to_blocks(table.iloc[r], types) for r in (part, rest))
        values = make_committee(recipe, known).fit(known, labels[part]).predict_with_std(asked)[0]
        for column, target in enumerate(recipe.targets):
            has = ~np.isnan(labels[rest, column])
            rows.append((count, target, rmse(labels[rest, column][has], values[has, column])))
        scores = pd.DataFrame(rows, columns=["materials", "target", "rmse"])
        scores.to_csv(args.out, index=False)
    print(scores.pivot_table("rmse", "materials", "target").round(4).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("folds", "test", "groups", "curve"))
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    *given.model, given.out = given.arguments
    given.model = given.model[0] if given.model else None
    steps = {"folds": run_folds, "test": run_test, "groups": run_groups, "curve": run_curve}
    steps[given.step](given)
