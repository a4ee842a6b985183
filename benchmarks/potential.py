"""Compare `best`, CHGNet's own values and `best+potential`, which reads both.

    python benchmarks/potential.py OUT [--repeats 3]

First come five folds of the training set of `mp-fcc` with paired tests, then the test set. How the
potential's numbers are read was chosen on the folds of the first two repeats: as blocks with terms
of their own, in place of the target's difference from CHGNet's value (`difference`, printed, too).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from rhosight import load_dataset, load_recipe
from rhosight.dataset import Dataset, split
from rhosight.evaluation.folds import fit_baseline
from rhosight.evaluation.statistics import Fold, compare, fold_scores, repeated_folds
from rhosight.models.baselines.baselines import POTENTIAL, compute_baseline_features
from rhosight.models.baselines.potential import SEEN
from rhosight.models.blocks import BlockReader
from rhosight.models.gaussian_process.fitting import fit_descriptors

Predict = Callable[[np.ndarray], np.ndarray]
TEST = -1
NAMES = ("best", "best+potential")


class Models:
    """Fit the models to a fold; features are computed once."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        self.table = BlockReader(load_recipe("best+potential")).table(dataset)
        self.potential = compute_baseline_features(POTENTIAL, dataset)

    def fit(self, train: np.ndarray) -> dict[str, Predict]:
        """Return model → function that predicts rows."""
        labels = self.dataset.targets
        values = labels.to_numpy(dtype=float)
        models = {POTENTIAL: fit_baseline(POTENTIAL, self.potential, labels, train, 0)}
        for name in NAMES:
            recipe = load_recipe(name, targets=tuple(labels))
            models[name] = fit_descriptors(recipe, self.table, values, train)
        own = models[POTENTIAL](np.arange(len(values)))
        own = np.nan_to_num(own)  # the Fermi energy has none
        recipe = load_recipe("best", targets=tuple(labels))
        rest = fit_descriptors(recipe, self.table, values - own, train)
        models["difference"] = lambda rows: rest(rows) + own[rows]
        return models

    def predict(self, part: Fold) -> pd.DataFrame:
        """Return the predictions of a fold's validation set by all models."""
        rows, frames = part.validation, []
        for name, predict in self.fit(part.train).items():
            values = predict(rows)
            for column, target in enumerate(self.dataset.targets):
                frame = {
                    "model": name,
                    "repeat": part.repeat,
                    "fold": part.fold,
                    "target": target,
                    "material_id": np.array(self.dataset.ids)[rows],
                    "true": self.dataset.targets[target].to_numpy(float)[rows],
                    "predicted": values[:, column],
                }
                frames.append(pd.DataFrame(frame).dropna(subset=["true", "predicted"]))
        return pd.concat(frames, ignore_index=True)


def report(predictions: pd.DataFrame, title: str) -> None:
    """Print scores, and paired tests where there are folds."""
    scores = fold_scores(predictions)
    print(f"\n{title}\n")
    means = scores.groupby(["target", "model"], sort=False)[["r2", "rmse"]].agg(["mean", "std"])
    print(means.round(4).to_string())
    if predictions["fold"].nunique() > 1:
        tested = predictions[predictions["model"].isin(NAMES)]
        others = dict.fromkeys(tested["target"].unique(), "best")
        print(compare(tested, "best+potential", others).to_string())


def main(out: Path, repeats: int) -> None:
    dataset = load_dataset("mp-fcc")
    models = Models(dataset)
    train, test = split(dataset)
    out.mkdir(parents=True, exist_ok=True)
    parts = [
        *repeated_folds(dataset, repeats=repeats, indices=train),
        Fold(TEST, TEST, train, test),
    ]
    found = []
    for part in parts:
        file = out / f"{part.repeat}-{part.fold}.parquet"
        if not file.exists():
            models.predict(part).to_parquet(file)
        found.append(pd.read_parquet(file))
    report(pd.concat(found[:-1], ignore_index=True), "folds of the training set")
    report(found[-1], f"test set, {len(test)} materials")
    print(f"\n{SEEN}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.out, arguments.repeats)
