"""Compare models, CHGNet's own values, and models that read both.

    python benchmarks/potential.py OUT [--repeats 3]

`best`, `best+potential` and `difference`, which learns how far the target is from CHGNet's value,
learn from the folds of `mp-fcc`; `structure` and `structure+potential` from the training set of
`mp-elastic` without the formulas of the fold. First come five folds of the training set of `mp-fcc`
with paired tests, then its test set; then, of the two that know all lattices, each material of the
training set of `mp-elastic` without its formula, and its test set; last, `best` and
`best+potential` beside `structure` and `structure+potential`, as `train --with-structure` makes
them. How the potential's numbers are read was chosen on training sets. Energies that CHGNet has
computed are kept; without them, the 2,838 crystals take ten minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from rhosight import DescriptorModel, load_dataset, load_recipe
from rhosight.dataset import Dataset, split
from rhosight.dataset.splits import group_labels
from rhosight.evaluation.folds import fit_baseline
from rhosight.evaluation.statistics import Fold, compare, fold_scores, repeated_folds
from rhosight.models.baselines.baselines import POTENTIAL, compute_baseline_features
from rhosight.models.baselines.potential import SEEN
from rhosight.models.blocks import BlockReader, keep_describable
from rhosight.models.combined import CombinedModel
from rhosight.models.gaussian_process.fitting import fit_descriptors

Predict = Callable[[np.ndarray], np.ndarray]
TEST = -1
NAMES = ("best", "best+potential")
GENERAL = ("structure", "structure+potential")


class Models:
    """Fit the models to a fold; features are computed once."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        self.table = BlockReader(load_recipe("best+potential")).table(dataset)
        self.potential = compute_baseline_features(POTENTIAL, dataset)
        self.general = {name: General(name, dataset) for name in GENERAL}

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
        return models | {name: one.predict_without for name, one in self.general.items()}

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


class General:
    """A model of all lattices, learned from the training set of `mp-elastic`."""

    def __init__(self, name: str, dataset: Dataset):
        elastic = load_dataset("mp-elastic")
        train, test = split(elastic)
        recipe = load_recipe(name)
        self.model = DescriptorModel(recipe).fit(elastic[train])
        self.columns = [recipe.targets.index(target) for target in dataset.targets]
        self.known = elastic[self.model.about["training_ids"]]
        self.test = keep_describable(elastic[test], recipe)
        self.formulas, self.given = group_labels(self.known), group_labels(dataset)
        self.places = pd.Index(self.known.ids).get_indexer(pd.Index(dataset.ids))
        self.dataset = dataset

    def predict_without(self, rows: np.ndarray) -> np.ndarray:
        """Predict materials of `mp-fcc`, whose formulas are left out together."""
        if (self.places[rows] < 0).all():  # the test set, which it has never learned
            return self.model.predict(self.dataset[rows]).to_numpy(float)[:, self.columns]
        assert (self.places[rows] >= 0).all(), "learned or not, but not both"
        asked = np.isin(self.formulas, self.given[rows])
        groups = np.where(asked, -1, np.arange(len(asked)))
        mean, _ = self.model.in_units(*self.model.process.leave_out(groups))
        return mean[self.places[rows]][:, self.columns]

    def measure_errors(self) -> dict[str, pd.DataFrame]:
        """Return the errors on `mp-elastic`, without formulas and on the test set."""
        names = list(self.model.targets)
        left_out = self.model.out_of_fold.pivot(index="material_id", columns="target")
        errors = (left_out["true"] - left_out["predicted"]).loc[self.known.ids, names]
        return {
            "training set, without formulas": errors,
            "test set": self.test.targets[names] - self.model.predict(self.test),
        }


def report_general(models: dict[str, General]) -> None:
    """Print the errors of two models of all lattices."""
    one, other = (models[name].measure_errors() for name in GENERAL)
    for part, errors in one.items():
        report_ratios(f"mp-elastic, {part}: {' and '.join(GENERAL)}", errors, other[part])


def report_combined(dataset: Dataset) -> None:
    """Print the errors of `best` and `best+potential` beside their models of all lattices."""
    train, test = split(dataset)
    targets, others = tuple(dataset.targets), dataset[test]
    alone, combined, tests = {}, {}, {}
    for name in NAMES:
        model = CombinedModel(load_recipe(name, targets=targets)).fit(dataset[train])
        learned = dataset[model.special.about["training_ids"]]
        labels = learned.targets.to_numpy(float)
        _, (special, _), (mean, _) = model.predict_folds(learned)
        alone[name] = pd.DataFrame(special - labels, learned.ids, targets)
        combined[name] = pd.DataFrame(mean - labels, learned.ids, targets)
        tests[name] = model.predict(others)[list(targets)] - others.targets
        print(f"{name}, combined with {model.general_name}: takes part in {', '.join(model.kept)}")
    best, with_potential = NAMES
    for title, errors, other in (
        (f"folds: {best} alone and {with_potential} combined", alone[best], combined),
        (f"folds: {best} and {with_potential}, combined", combined[best], combined),
        (f"test set: {best} and {with_potential}, combined", tests[best], tests),
    ):
        report_ratios(f"mp-fcc, {title}", errors, other[with_potential])


def report_ratios(title: str, errors: pd.DataFrame, others: pd.DataFrame) -> None:
    """Print RMSEs of two models, and their ratio with a bootstrap over materials."""
    generator = np.random.default_rng(0)
    print(f"\n{title}: RMSE, and 95 % interval of the ratio")
    for target in errors:
        pair = pd.concat([errors[target], others[target]], axis=1).dropna().to_numpy() ** 2
        draws = generator.integers(len(pair), size=(2000, len(pair)))
        squares = pair[draws].mean(axis=1)
        low, high = np.quantile(np.sqrt(squares[:, 1] / squares[:, 0]), [0.025, 0.975])
        before, after = np.sqrt(pair.mean(axis=0))
        print(f"{target}: {before:.4g}, {after:.4g} ({low - 1:+.1%} to {high - 1:+.1%})")


def report(predictions: pd.DataFrame, title: str) -> None:
    """Print scores, and paired tests where there are folds."""
    scores = fold_scores(predictions)
    print(f"\n{title}\n")
    means = scores.groupby(["target", "model"], sort=False)[["r2", "rmse"]].agg(["mean", "std"])
    print(means.round(4).to_string())
    if predictions["fold"].nunique() > 1:
        for name, other in (NAMES[::-1], GENERAL[::-1], (GENERAL[1], NAMES[0])):
            others = dict.fromkeys(predictions["target"].unique(), other)
            tested = predictions[predictions["model"].isin((name, other))]
            print(compare(tested, name, others).to_string())


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
    report_general(models.general)
    report_combined(dataset)
    print(f"\n{SEEN}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.out, arguments.repeats)
