"""Score image, text and image+text with and without fine-tuned encoders.

    python benchmarks/encoder_tuning.py OUT [--recipe text] [--folds 5] [--tuned lora] [--epochs 3]

In each fold of the training set of `mp-fcc`, the encoders are fine-tuned once, on a part of the
fold's training set (:mod:`rhosight.models.encoder_tuning`). Three rows of each recipe are scored:
frozen encoders; the fine-tuned encoders that the rest of the training set prefers; and fine-tuned
encoders in any case. The test set is not used. Each fold is saved in OUT, so the same command
resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from encoders import as_frame, read_blocks

import rhosight
from rhosight import DescriptorRecipe, load_recipe
from rhosight.dataset import Dataset, split
from rhosight.evaluation.statistics import Fold, compare, fold_scores, repeated_folds
from rhosight.models.encoder_tuning import Choice, EncoderTuner
from rhosight.models.gaussian_process.fitting import fit_descriptors
from rhosight.storage import replacing


def run_fold(
    dataset: Dataset, recipe: DescriptorRecipe, tuner: EncoderTuner, part: Fold
) -> pd.DataFrame:
    """Return predictions of the validation set, and the verdicts in a column ``verdict``."""
    started = time.process_time()
    tuned = tuner.tune(part.train)
    seconds = time.process_time() - started
    rows = np.concatenate([part.train, part.validation])
    frames = []
    for own in recipe.list_parts():
        chosen = tuned.choose(own)
        kinds = [kind for kind in ("image", "text") if getattr(own, kind)]
        forced = tuple(one for one in tuned.encoders if one.kind in kinds)
        choices = {
            "": Choice((), (), tuned.frozen),
            ", chosen": chosen,
            ", always fine-tuned": replace(chosen, kept=forced),
        }
        for ending, choice in choices.items():
            table = choice.table(rows)
            predict = fit_descriptors(own, table, tuner.targets, part.train)
            values = predict(part.validation)
            frame = as_frame(dataset, f"{own.label}{ending}", part, values)
            frames.append(frame.assign(verdict="; ".join(map(str, choice.verdicts))))
        print(f"fold {part.fold}: {own.label}: {'; '.join(map(str, chosen.verdicts))}", flush=True)
    print(f"fold {part.fold}: {seconds:.0f} s of fine-tuning", flush=True)
    return pd.concat(frames, ignore_index=True)


def report(predictions: pd.DataFrame) -> None:
    """Print mean scores over folds, and the change of the RMSE against frozen encoders."""
    scores = fold_scores(predictions)
    table = scores.groupby(["model", "target"], sort=False)[["r2", "rmse"]].mean()
    print(f"\n{table.unstack('target').round(4).to_string()}")
    rows = []
    for name in predictions["model"].unique():
        frozen = name.partition(",")[0]
        if name != frozen:
            rows.append(compare(predictions, name, frozen).assign(model=name))
    columns = ["model", "rmse", "baseline_rmse", "relative", "p"]
    print(f"\nagainst frozen encoders\n{pd.concat(rows)[columns].round(4).to_string()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", choices=("image", "text", "image+text"), default="image+text")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--tuned", choices=("all", "last", "lora"))
    parser.add_argument("--epochs", type=int)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    given = {"tuned": arguments.tuned, "epochs": arguments.epochs}
    stage = {name: value for name, value in given.items() if value is not None}
    recipe = load_recipe(arguments.recipe, fine_tuning={"stage": stage} if stage else {})
    dataset = rhosight.load_dataset("mp-fcc")
    parts = list(repeated_folds(dataset, repeats=1, indices=split(dataset)[0]))[: arguments.folds]
    files = [arguments.out / f"fold-{part.fold}.parquet" for part in parts]
    if not all(file.exists() for file in files):
        table = read_blocks(dataset, recipe.label, recipe, arguments.out)
        tuner = EncoderTuner(recipe, dataset, table)
        for part, file in zip(parts, files, strict=True):
            if not file.exists():
                frame = run_fold(dataset, recipe, tuner, part)
                with replacing(file) as draft:
                    frame.to_parquet(draft)
    report(pd.concat([pd.read_parquet(file) for file in files], ignore_index=True))


if __name__ == "__main__":
    main()
