"""What contrastive pre-training on the training part brings, against not doing it.

    python benchmarks/pretraining.py --folds 3 --out pretraining.csv

The same dual encoder, linear readout, folds and seeds with and without pre-training; scores are
those of the validation folds. The test part of the default split is not looked at. About ten
minutes on two cores with the default settings.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

import rhosight
from rhosight.contrastive import embeddings, retrieval
from rhosight.dataset import folds
from rhosight.property_model import inner_split, make_inputs, scaler_of
from rhosight.recipe import Recipe
from rhosight.saved_model import r2_score, rmse
from rhosight.training import StageResult, train, view_count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=3, help="run the first so many of five")
    parser.add_argument("--seeds", type=int, default=1, help="repeats with other seeds")
    parser.add_argument("--pretraining-epochs", type=int, default=30)
    parser.add_argument("--epochs", type=int, nargs=2, default=(60, 8))
    parser.add_argument("--size", type=int, default=96, help="pixels along an image's side")
    parser.add_argument("--extent", default="keywords")
    parser.add_argument("--out", type=Path, help="CSV file for the scores of each fold")
    arguments = parser.parse_args()

    base = Recipe.named("clip-offline", extent=arguments.extent, epochs=arguments.epochs, views=3)
    base = base.model_copy(update={"image": base.image.model_copy(update={"size": arguments.size})})
    pretraining = base.pretraining.model_copy(update={"epochs": arguments.pretraining_epochs})
    arms = {
        "without": base.model_copy(
            update={"pretraining": pretraining.model_copy(update={"epochs": 0})}
        ),
        "with": base.model_copy(update={"pretraining": pretraining}),
    }
    dataset = rhosight.load_dataset("mp-fcc").require_targets(base.targets, how="any")
    training_part, _ = rhosight.split(dataset)
    inputs = make_inputs(dataset, base)
    targets = dataset.targets[list(base.targets)].to_numpy(dtype=float)
    formulas = dataset.table["formula"].to_list()

    scores, found = [], []
    parts = folds(dataset, 5, indices=training_part)[: arguments.folds]
    for fold, (rows, validation) in enumerate(parts):
        for seed in range(arguments.seeds):
            for arm, recipe in arms.items():
                recipe = recipe.model_copy(update={"seed": seed})
                fit, stop = inner_split(dataset[rows], recipe)
                started = time.perf_counter()

                def record(result: StageResult, arm=arm, fold=fold, seed=seed, rows=validation):
                    predicted = result.predict(rows)
                    for column, target in enumerate(base.targets):
                        known = ~np.isnan(targets[rows, column])
                        pair = targets[rows, column][known], predicted[known, column]
                        key = {"fold": fold, "seed": seed, "pre-training": arm}
                        key |= {"stage": result.stage, "target": target}
                        scores.append(key | {"r2": r2_score(*pair), "rmse": rmse(*pair)})

                network = train(
                    recipe, inputs, targets, rows[fit], rows[stop], scaler_of(targets[rows]),
                    on_stage=record, formulas=formulas,
                )  # fmt: skip
                seconds = time.perf_counter() - started
                print(f"fold {fold}, seed {seed}, {arm} pre-training: {seconds:.0f} s", flush=True)
                # the encoder after fine-tuning on labels: does it still know which belong together?
                views = view_count(recipe)
                image, text = embeddings(network.backbone, inputs, validation, views)
                table = retrieval(image, text, [formulas[row] for row in validation])
                found.append(table.assign(arm=arm).drop(columns="materials"))

    frame = pd.DataFrame(scores)
    if arguments.out:
        frame.to_csv(arguments.out, index=False)
    mean = frame.groupby(["target", "stage", "pre-training"], sort=False)[["r2", "rmse"]]
    print("\nvalidation folds, mean and deviation")
    print(mean.agg(["mean", "std"]).round(3).to_string())
    paired = frame.pivot(
        index=["target", "stage", "fold", "seed"], columns="pre-training", values="rmse"
    )
    gain = 1 - paired["with"] / paired["without"]
    print("\nRMSE saved by pre-training, fraction")
    print(gain.groupby(["target", "stage"], sort=False).agg(["mean", "std", "min"]).round(3))
    print("\nretrieval among the materials of a validation fold, after fine-tuning")
    print(pd.concat(found).groupby(["arm", pd.concat(found).index]).mean().round(3).to_string())


if __name__ == "__main__":
    main()
