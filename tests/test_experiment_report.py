"""Answers, figures and the report of many runs: real materials, folds and baselines; the networks
are true values with noise, so that what the answers must be is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rhosight.baselines import baseline_features, make_baseline
from rhosight.dataset import Dataset, split
from rhosight.experiments import scores
from rhosight.schema import TARGETS
from rhosight.statistics import repeated_folds

REPEATS, FOLDS = 2, 5

# of synthetic networks, in standard deviations of the labels
NOISE = {
    ("image", ""): 0.60,
    ("text", "formula"): 0.50,
    ("text", "keywords"): 0.40,
    ("text", "all"): 0.40,
    ("image+text", "formula"): 0.30,
    ("image+text", "keywords"): 0.40,
    ("image+text", "all"): 0.80,
}


@pytest.fixture(scope="module")
def predictions(dataset: Dataset) -> pd.DataFrame:
    """Two repeats of five folds, all targets: mean and composition are real."""
    return make_predictions(dataset)


def make_predictions(dataset: Dataset, repeats: int = REPEATS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    train, test = split(dataset)
    features = {
        name: baseline_features(name, dataset.densities) for name in ("mean", "composition")
    }
    ids = np.array(dataset.ids)
    found = []
    for part in repeated_folds(dataset, FOLDS, repeats, indices=train):
        rows = {"train": part.train, "validation": part.validation, "test": test}
        for target in TARGETS:
            y = dataset.targets[target].to_numpy(float)
            known = part.train[~np.isnan(y[part.train])]
            said = {}
            for name, x in features.items():
                model = make_baseline(name, part.repeat)
                if name != "mean":
                    model[-1].set_params(n_estimators=10)
                said[name, "", ""] = model.fit(x.iloc[known], y[known]).predict(x)
            for (name, extent), noise in NOISE.items():
                for stage, factor in (("head", 1.5), ("fine-tuning", 1.0)):
                    error = rng.normal(0, noise * factor * np.nanstd(y), len(y))
                    said[name, extent, stage] = y + error
            for (model, extent, stage), values in said.items():
                for name, where in rows.items():
                    frame = pd.DataFrame({"material_id": ids[where], "true": y[where]})
                    frame = frame.assign(predicted=values[where], part=name, stage=stage)
                    frame = frame.assign(model=model, extent=extent, target=target)
                    frame = frame.assign(fold=part.fold, repeat=part.repeat)
                    found.append(frame[frame["true"].notna()])
    return pd.concat(found, ignore_index=True)[list(scores.COLUMNS)]
