"""Compare the recipes `best` and `no-dft` with all baselines on repeated folds.

    python benchmarks/best.py OUT [--groups formula|chemsys|prototype] [--repeats 3] [--size N]
                              [--baselines NAME ...]

First come five folds of the training set of `mp-fcc`, without the test set. Then models of the
whole training set predict the test set once. Nothing is tuned here: the Gaussian processes optimise
their hyperparameters on the training set of each fold. The blocks and kernels of `best` and the
form of the baselines were chosen by hand on the folds of the first repeat. The test set had no part
in that choice. The script prints R² and RMSE, the paired test of `best` against the strongest
baseline of each target, and the coverage and width of 90 % intervals. Each fold is saved in OUT, so
the same command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

import rhosight
from rhosight import load_recipe
from rhosight.dataset import Dataset, split
from rhosight.evaluation.coverage import coverage_table, nested_intervals
from rhosight.evaluation.statistics import Fold, compare, fold_scores, repeated_folds, score_table
from rhosight.inputs.descriptors.blocks import to_blocks
from rhosight.models.baselines.baselines import (
    ALL_BASELINES,
    PRETRAINED,
    compute_features_of_baselines,
    find_strongest,
    make_baseline,
)
from rhosight.models.baselines.chgnet import CHGNET_NOTE, find_chgnet_version
from rhosight.models.blocks import BlockReader
from rhosight.models.gaussian_process.fitting import make_committee
from rhosight.storage import replacing

TEST = -1
"""Number of the test set among the folds."""


def predict_fold(
    dataset: Dataset,
    features: dict[str, pd.DataFrame],
    tables: dict[str, pd.DataFrame],
    baselines: list[str],
    part: Fold,
    out: Path,
) -> pd.DataFrame:
    """Return predictions of all models for the validation set of one fold."""
    file = out / f"{part.repeat}-{part.fold}.parquet"
    if file.exists():
        return pd.read_parquet(file)
    targets = list(dataset.targets)
    labels = dataset.targets.to_numpy(dtype=float)
    ids = np.array(dataset.ids)
    rows = []

    def keep(model: str, column: int, mean: np.ndarray, std: np.ndarray | float) -> None:
        frame = {
            "model": model,
            "repeat": part.repeat,
            "fold": part.fold,
            "target": targets[column],
            "material_id": ids[part.validation],
            "true": labels[part.validation, column],
            "predicted": mean,
            "std": std,
        }
        rows.append(pd.DataFrame(frame).dropna(subset="true"))

    for name, table in tables.items():
        prototypes = sorted(set(table["prototype"].iloc[part.train]))
        learn, ask = (to_blocks(table.iloc[p], prototypes) for p in (part.train, part.validation))
        model = make_committee(load_recipe(name), learn).fit(learn, labels[part.train])
        mean, std = model.predict(ask, return_std=True)
        for column in range(len(targets)):
            keep(name, column, mean[:, column], std[:, column])
    for name in baselines:
        make = partial(make_baseline, name, max(part.repeat, 0))
        for column in range(len(targets)):
            known = part.train[~np.isnan(labels[part.train, column])]
            fitted = make().fit(features[name].iloc[known], labels[known, column])
            ask = features[name].iloc[part.validation]
            if name.endswith("-kernel"):
                keep(name, column, *fitted.predict(ask, return_std=True))
            else:
                keep(name, column, fitted.predict(ask), np.nan)
    found = pd.concat(rows, ignore_index=True)
    with replacing(file) as draft:
        found.to_parquet(draft)
    print(f"repeat {part.repeat}, fold {part.fold}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--groups", default="formula")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--size", type=int, help="number of training materials per fold")
    parser.add_argument(
        "--baselines", nargs="+", choices=ALL_BASELINES, help="run only these baselines"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    dataset = rhosight.load_dataset("mp-fcc")
    train, test = split(dataset, groups=arguments.groups)
    baselines = arguments.baselines or [name for name in ALL_BASELINES if name != "mean"]
    if find_chgnet_version() and not arguments.baselines:
        baselines += [f"{n}{form}" for n in PRETRAINED for form in ("", "-kernel", "-average")]
    features = compute_features_of_baselines(baselines, dataset.densities)
    best = BlockReader(load_recipe("best")).table(dataset)
    tables = {"best": best, "no-dft": best}  # no-dft uses a subset of these blocks
    parts = list(
        repeated_folds(dataset, repeats=arguments.repeats, groups=arguments.groups, indices=train)
    )
    parts.append(Fold(TEST, TEST, train, test))
    if arguments.size:
        draw = np.random.default_rng(arguments.size)
        parts = [replace(p, train=draw.permutation(p.train)[: arguments.size]) for p in parts]
    work = delayed(predict_fold)
    found = Parallel(n_jobs=arguments.jobs)(
        work(dataset, features, tables, baselines, part, arguments.out) for part in parts
    )
    report(pd.concat(found[:-1], ignore_index=True), "out-of-fold predictions")
    report(found[-1], f"test set, {len(test)} materials")


def report(predictions: pd.DataFrame, title: str) -> None:
    """Print the tables."""
    scores = fold_scores(predictions)
    print(f"\n{title}\n")
    means = scores.groupby(["target", "model"], sort=False)[["r2", "rmse"]].agg(["mean", "std"])
    print(means.round(4).to_string())
    if scores["model"].isin(PRETRAINED).any():
        print(CHGNET_NOTE)
    top = find_strongest(scores[~scores["model"].isin(["best", "no-dft"])])
    for target, name in top.items():
        ours, theirs = (means.loc[(target, m), ("rmse", "mean")] for m in ("best", name))
        print(f"{target}: best {100 * (ours / theirs - 1):+.1f} % relative to {name}")
    if predictions["fold"].nunique() > 1:
        print(compare(predictions, "best", top).to_string())
        print(score_table(predictions[predictions["model"].isin(["best", "no-dft"])]).to_string())
        kernels = predictions[predictions["std"].notna()]
        print(coverage_table(nested_intervals(kernels, normalised=True)).round(3).to_string())
        plain = predictions[predictions["model"].isin(["best", "composition-average"])]
        print(coverage_table(nested_intervals(plain)).round(3).to_string())


if __name__ == "__main__":
    main()
