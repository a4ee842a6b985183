"""Measure the effect of contrastive pre-training on the training set.

    python benchmarks/pretraining.py --folds 3 --out pretraining.csv

The same dual encoder, linear readout, folds and seeds run with and without pre-training. Scores are
those of the validation folds. The test set of the default split is not used. Finished results are
written to the CSV file at once, and the same command resumes an interrupted run. Retrieval of the
text for each image, and the reverse, is measured twice: for the encoder after pre-training, and
after fine-tuning on labels.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

import rhosight
from rhosight import Dataset, load_recipe
from rhosight.dataset import folds
from rhosight.inputs.tensors import Inputs
from rhosight.metrics import r2_score, rmse
from rhosight.models.inputs import make_inputs
from rhosight.networks.modules import ClipModel
from rhosight.networks.recipe import Recipe
from rhosight.training.contrastive import compute_embeddings, score_retrieval
from rhosight.training.folds import prepare_fold
from rhosight.training.stages import EncoderCache, StageResult, train

BEFORE, AFTER = "retrieval", "retrieval, fine-tuned"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=3, help="number of folds to run, out of five")
    parser.add_argument(
        "--seeds", type=int, default=1, help="number of repeats with different seeds"
    )
    parser.add_argument("--pretraining-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, nargs=2, default=(60, 8))
    parser.add_argument("--size", type=int, default=64, help="pixels along each side of the image")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--extent", default="keywords")
    parser.add_argument("--out", type=Path, default=Path("pretraining.csv"), help="CSV file")
    arguments = parser.parse_args()

    base = load_recipe(
        "clip-offline",
        text={"extent": arguments.extent, "max_tokens": arguments.max_tokens},
        head={"epochs": arguments.epochs[0], "learning_rate": 3e-3},
        fine_tuning={
            "epochs": arguments.epochs[1],
            "batch_statistics": "kept",
            "learning_rate": 1e-4,
        },
        image={"rate": 1e-4},
        augmentation={"views": 3},
    )
    base = base.replace(image={"settings": {"size": arguments.size}})
    arms = {
        "without": base.replace(pretraining={"epochs": 0}),
        "with": base.replace(pretraining={"epochs": arguments.pretraining_epochs}),
    }
    dataset = rhosight.load_dataset("mp-fcc").require_targets(base.targets, how="any")
    training_part, _ = rhosight.split(dataset)
    inputs = make_inputs(dataset, base)
    caches: dict[int, EncoderCache] = {}  # by seed: features that do not depend on the fold

    found = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame()
    parts = folds(dataset, 5, indices=training_part)[: arguments.folds]
    for fold, (rows, validation) in enumerate(parts):
        for seed in range(arguments.seeds):
            for arm, recipe in arms.items():
                key = {"fold": fold, "seed": seed, "pretraining": arm}
                if len(found) and (found[list(key)] == pd.Series(key)).all(axis=1).any():
                    continue
                started = time.perf_counter()
                recipe = recipe.replace(seed=seed)
                cache = caches.setdefault(seed, EncoderCache())
                scores = trial(recipe, dataset, inputs, rows, validation, cache)
                seconds = time.perf_counter() - started
                print(f"fold {fold}, seed {seed}, {arm} pre-training: {seconds:.0f} s", flush=True)
                found = pd.concat([found, scores.assign(**key)], ignore_index=True)
                found.to_csv(arguments.out, index=False)
    _show(found)


def trial(
    recipe: Recipe,
    dataset: Dataset,
    inputs: Inputs,
    rows: np.ndarray,
    validation: np.ndarray,
    cache: EncoderCache,
) -> pd.DataFrame:
    """Return scores of both stages and retrieval before and after, for one fold."""
    targets = dataset.targets[list(recipe.targets)].to_numpy(dtype=float)
    formulas = dataset.table["formula"].to_list()
    found = []

    def record(result: StageResult) -> None:
        predicted = result.predict(validation)
        for column, target in enumerate(recipe.targets):
            known = ~np.isnan(targets[validation, column])
            pair = targets[validation, column][known], predicted[known, column]
            scores = {"r2": r2_score(*pair), "rmse": rmse(*pair)}
            found.append(pd.DataFrame([{"what": result.stage, "of": target, **scores}]))

    # pre-train first; the second call loads the result from the folder
    alone = recipe.replace(head={"epochs": 0}, fine_tuning={"epochs": 0})
    with TemporaryDirectory() as folder:
        for settings, what in ((alone, BEFORE), (recipe, AFTER)):
            data = prepare_fold(settings, dataset, inputs, rows)
            network = train(settings, data, cache, Path(folder), record)
            ranks = retrieved(network, inputs, validation, settings, formulas)
            found.append(ranks.assign(what=what))
    return pd.concat(found, ignore_index=True)


def retrieved(
    network: ClipModel, inputs: Inputs, rows: np.ndarray, recipe: Recipe, formulas: list[str]
) -> pd.DataFrame:
    """Return recall@k and median rank in both directions, and by chance."""
    image, text = compute_embeddings(network.backbone, inputs, rows, recipe.views)
    table = score_retrieval(image, text, [formulas[row] for row in rows])
    return table.drop(columns="materials").rename_axis("of").reset_index()


def _show(found: pd.DataFrame) -> None:
    scores = found[~found["what"].isin((BEFORE, AFTER))]
    mean = scores.groupby(["of", "what", "pretraining"], sort=False)[["r2", "rmse"]]
    print("\nvalidation folds, mean and standard deviation")
    print(mean.agg(["mean", "std"]).round(3).to_string())
    paired = scores.pivot(
        index=["of", "what", "fold", "seed"], columns="pretraining", values="rmse"
    ).dropna()
    gain = 1 - paired["with"] / paired["without"]
    print("\nfractional reduction of the RMSE by pre-training")
    print(gain.groupby(["of", "what"], sort=False).agg(["mean", "std", "min"]).round(3))
    ranks = found[found["what"].isin((BEFORE, AFTER))]
    ranks = ranks.drop(columns=["fold", "seed", "r2", "rmse"])
    print("\nretrieval among the materials of a validation fold")
    print(ranks.groupby(["pretraining", "what", "of"], sort=False).mean().round(3).to_string())


if __name__ == "__main__":
    main()
