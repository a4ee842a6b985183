"""What contrastive pre-training on the training part brings, against not doing it.

    python benchmarks/pretraining.py --folds 3 --out pretraining.csv

The same dual encoder, linear readout, folds and seeds with and without pre-training; scores are
those of the validation folds. The test part of the default split is not looked at. What is finished
stands in the CSV file at once, and the same command goes on from there.
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
    parser.add_argument("--pretraining-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, nargs=2, default=(60, 8))
    parser.add_argument("--size", type=int, default=64, help="pixels along an image's side")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--extent", default="keywords")
    parser.add_argument("--out", type=Path, default=Path("pretraining.csv"), help="CSV file")
    arguments = parser.parse_args()

    base = Recipe.named(
        "clip-offline",
        extent=arguments.extent,
        epochs=arguments.epochs,
        views=3,
        max_tokens=arguments.max_tokens,
    )
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
    frozen: dict[int, dict] = {}  # by seed: what depends on no fold
    targets = dataset.targets[list(base.targets)].to_numpy(dtype=float)
    formulas = dataset.table["formula"].to_list()

    found = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame()
    parts = folds(dataset, 5, indices=training_part)[: arguments.folds]
    for fold, (rows, validation) in enumerate(parts):
        for seed in range(arguments.seeds):
            for arm, recipe in arms.items():
                key = {"fold": fold, "seed": seed, "pretraining": arm}
                if len(found) and (found[list(key)] == pd.Series(key)).all(axis=1).any():
                    continue
                recipe = recipe.model_copy(update={"seed": seed})
                fit, stop = inner_split(dataset[rows], recipe)
                started = time.perf_counter()
                scores = []

                def record(result: StageResult, key=key, rows=validation, scores=scores):
                    predicted = result.predict(rows)
                    for column, target in enumerate(base.targets):
                        known = ~np.isnan(targets[rows, column])
                        pair = targets[rows, column][known], predicted[known, column]
                        of = key | {"what": result.stage, "of": target}
                        scores.append(of | {"r2": r2_score(*pair), "rmse": rmse(*pair)})

                network = train(
                    recipe, inputs, targets, rows[fit], rows[stop], scaler_of(targets[rows]),
                    on_stage=record, formulas=formulas, frozen=frozen.setdefault(seed, {}),
                )  # fmt: skip
                seconds = time.perf_counter() - started
                print(f"fold {fold}, seed {seed}, {arm} pre-training: {seconds:.0f} s", flush=True)
                # the encoder after fine-tuning on labels: does it still know which belong together?
                image, text = embeddings(network.backbone, inputs, validation, view_count(recipe))
                table = retrieval(image, text, [formulas[row] for row in validation])
                ranks = table.drop(columns="materials").rename_axis("of").reset_index()
                ranks = ranks.assign(**key, what="retrieval")
                found = pd.concat([found, pd.DataFrame(scores), ranks], ignore_index=True)
                found.to_csv(arguments.out, index=False)
    _show(found)


def _show(found: pd.DataFrame) -> None:
    scores = found[found["what"] != "retrieval"]
    mean = scores.groupby(["of", "what", "pretraining"], sort=False)[["r2", "rmse"]]
    print("\nvalidation folds, mean and deviation")
    print(mean.agg(["mean", "std"]).round(3).to_string())
    paired = scores.pivot(
        index=["of", "what", "fold", "seed"], columns="pretraining", values="rmse"
    ).dropna()
    gain = 1 - paired["with"] / paired["without"]
    print("\nRMSE saved by pre-training, fraction")
    print(gain.groupby(["of", "what"], sort=False).agg(["mean", "std", "min"]).round(3))
    ranks = found[found["what"] == "retrieval"].drop(columns=["what", "fold", "seed", "r2", "rmse"])
    print("\nretrieval among the materials of a validation fold, after fine-tuning")
    print(ranks.groupby(["pretraining", "of"], sort=False).mean().round(3).to_string())


if __name__ == "__main__":
    main()
