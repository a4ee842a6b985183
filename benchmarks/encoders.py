"""Score image, text and image+text, read by Gaussian processes, on repeated folds.

    python benchmarks/encoders.py OUT [--repeats 3] [--sizes] [--models image text]
    python benchmarks/encoders.py OUT --timing 2

Five folds of the training set of `mp-fcc`, repeated; then models of the whole training set predict
the test set once. Beside them stand `best`, `no-dft` and composition-average on the same folds,
with paired tests (Nadeau and Bengio, Holm). The images, layers, statistics and texts of the recipes
were chosen by hand on the folds of the first repeat; the test set had no part in that choice.
`encoder_choice.py` scores the alternatives, and a choice that sees none of the scored folds.
`--sizes` draws learning curves from 25 materials on; `--models` leaves out other models. The script
prints the seconds of features (from an empty cache) and of fits. Each fold is saved in OUT, so the
same command resumes an interrupted run. `--timing` only measures one cross-validation of the three
recipes by some processes, first with an empty cache, then with a full one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor

import rhosight
from rhosight import DescriptorRecipe, load_recipe
from rhosight.dataset import Dataset, split
from rhosight.evaluation.folds import fit_baseline
from rhosight.evaluation.statistics import Fold, compare, fold_scores, holm, repeated_folds
from rhosight.models.baselines.baselines import compute_baseline_features
from rhosight.models.blocks import BlockReader
from rhosight.models.gaussian_process.fitting import fit_descriptors
from rhosight.networks.feature_cache import CACHE_VARIABLE
from rhosight.storage import replacing

TEST = -1
"""Number of the test set among the folds."""

COMPOSITION = "composition-average"
RECIPES = ("image", "text", "image+text")
MODELS = (*RECIPES, COMPOSITION, "best", "no-dft")
SIZES = (25, 50, 100, 200)


def predict_part(
    dataset: Dataset, name: str, recipe: DescriptorRecipe, table: pd.DataFrame, part: Fold
) -> pd.DataFrame:
    """Return the predictions of a recipe for the validation set of one fold."""
    labels = dataset.targets.to_numpy(dtype=float)
    predict = fit_descriptors(recipe, table, labels, part.train)
    return as_frame(dataset, name, part, predict(part.validation))


def predict_composition(dataset: Dataset, features: pd.DataFrame, part: Fold) -> pd.DataFrame:
    """Return the predictions of composition-average for one fold."""
    labels = dataset.targets.to_numpy(dtype=float)
    predict = fit_baseline(COMPOSITION, features, labels, part.train, max(part.repeat, 0))
    return as_frame(dataset, COMPOSITION, part, predict(part.validation))


def as_frame(dataset: Dataset, name: str, part: Fold, values: np.ndarray) -> pd.DataFrame:
    ids = np.array(dataset.ids)[part.validation]
    frames = [
        pd.DataFrame(
            {
                "model": name,
                "repeat": part.repeat,
                "fold": part.fold,
                "target": target,
                "material_id": ids,
                "true": dataset.targets[target].to_numpy(float)[part.validation],
                "predicted": values[:, column],
            }
        )
        for column, target in enumerate(dataset.targets)
    ]
    return pd.concat(frames).dropna(subset="true")


def iterate_parts(dataset: Dataset, repeats: int) -> Iterator[Fold]:
    """Yield the folds of the training set, then the test set."""
    train, test = split(dataset)
    yield from repeated_folds(dataset, repeats=repeats, indices=train)
    yield Fold(TEST, TEST, train, test)


def read_blocks(dataset: Dataset, name: str, recipe: DescriptorRecipe, out: Path) -> pd.DataFrame:
    """Return the table of a recipe; those of encoders share one, which stays in a file."""
    if name not in RECIPES:
        return BlockReader(recipe).table(dataset)
    file = out / "features.parquet"
    if not file.exists():
        with replacing(file) as draft:
            BlockReader(load_recipe("image+text")).table(dataset).to_parquet(draft)
    return pd.read_parquet(file)


def run(
    dataset: Dataset,
    recipes: dict[str, DescriptorRecipe | None],
    parts: list[Fold],
    out: Path,
    label: str = "",
) -> pd.DataFrame:
    """Return the predictions of all recipes; None stands for the composition model."""
    found = []
    for name, recipe in recipes.items():
        files = [out / f"{label}{name}-{part.repeat}-{part.fold}.parquet" for part in parts]
        missing = [n for n, file in enumerate(files) if not file.exists()]
        if missing:
            started = time.monotonic()
            if recipe is None:
                table = compute_baseline_features(COMPOSITION, dataset.densities)
            else:
                table = read_blocks(dataset, name, recipe, out)
            read = time.monotonic() - started
            for n in missing:
                part = parts[n]
                if recipe is None:
                    frame = predict_composition(dataset, table, part)
                else:
                    frame = predict_part(dataset, name, recipe, table, part)
                with replacing(files[n]) as draft:
                    frame.to_parquet(draft)
            fits = time.monotonic() - started - read
            print(f"{label}{name}: {read:.0f} s of features, {fits:.0f} s of fits", flush=True)
        found += [pd.read_parquet(file) for file in files]
    return pd.concat(found, ignore_index=True)


def fit_part(recipe: DescriptorRecipe, table: pd.DataFrame, labels: np.ndarray, part: Fold) -> None:
    """Fit a recipe to the training set of a fold and predict its validation set."""
    fit_descriptors(recipe, table, labels, part.train)(part.validation)


def measure(processes: int) -> None:
    """Print the time of five folds of all recipes, with an empty cache and with a full one."""
    labels = rhosight.load_dataset("mp-fcc").targets.to_numpy(dtype=float)
    for state in ("empty", "full"):
        get_reusable_executor().shutdown(wait=True)
        before, started = _processor_seconds(), time.monotonic()
        dataset = rhosight.load_dataset("mp-fcc")
        table = BlockReader(load_recipe("image+text")).table(dataset)
        read = time.monotonic() - started
        parts = list(repeated_folds(dataset, repeats=1, indices=split(dataset)[0]))
        jobs = [(load_recipe(name), part) for part in parts for name in RECIPES[::-1]]
        Parallel(processes)(delayed(fit_part)(own, table, labels, part) for own, part in jobs)
        whole = time.monotonic() - started
        get_reusable_executor().shutdown(wait=True)
        used = _processor_seconds() - before
        print(
            f"{state} cache: {whole:.0f} s, of which features {read:.0f} s; {used:.0f} s of "
            "processor time",
            flush=True,
        )


def _processor_seconds() -> float:
    """Return the processor time of this process and of finished children."""
    return sum(os.times()[:4])


def report(predictions: pd.DataFrame) -> None:
    """Print scores on folds and on the test set, and the paired tests."""
    for title, rows in (
        ("out-of-fold", predictions[predictions["fold"] != TEST]),
        ("test set", predictions[predictions["fold"] == TEST]),
    ):
        if rows.empty:
            continue
        scores = fold_scores(rows)
        table = scores.groupby(["model", "target"], sort=False)[["r2", "rmse"]].mean()
        print(f"\n{title}\n{table.unstack('target').round(4).to_string()}")
    folds = predictions[predictions["fold"] != TEST]
    for other in (COMPOSITION, "best"):
        if other not in set(folds["model"]):
            continue
        tests = [
            compare(folds, name, other).assign(model=name)
            for name in folds["model"].unique()
            if name != other
        ]
        table = pd.concat(tests)
        table["p_holm"] = holm(table["p"].to_numpy())
        columns = ["model", "rmse", "baseline_rmse", "relative", "p", "p_holm"]
        print(f"\nagainst {other}\n{table[columns].round(4).to_string()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--timing", type=int, metavar="PROCESSES")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.timing:
        with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
            os.environ[CACHE_VARIABLE] = folder
            measure(arguments.timing)
        return
    dataset = rhosight.load_dataset("mp-fcc")
    parts = list(iterate_parts(dataset, arguments.repeats))
    recipes: dict[str, DescriptorRecipe | None] = {
        name: None if name == COMPOSITION else load_recipe(name) for name in arguments.models
    }
    report(run(dataset, recipes, parts if not arguments.sizes else parts[:5], arguments.out))
    for size in SIZES if arguments.sizes else ():
        draw = np.random.default_rng(size)
        fewer = [replace(p, train=draw.permutation(p.train)[:size]) for p in parts[:5]]
        print(f"\n{size} materials")
        report(run(dataset, recipes, fewer, arguments.out, label=f"{size} "))


if __name__ == "__main__":
    main()
