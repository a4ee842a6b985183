"""Measure the effect of each design choice on networks and on `best`.

    python benchmarks/ablations.py OUT [--networks] [--blocks] [--sizes] [--folds 1 2]
    python benchmarks/ablations.py OUT --write docs/ablations.md

The output is one table of networks, one table of blocks of `best`, and learning curves. Without any
of the three flags, all three parts run. All scores refer to folds of the training set of `mp-fcc`
(``folds(dataset, 5, 0, "formula", indices=split(dataset)[0])``, numbered 0 to 4). The test set is
not used. Each finished row of each fold is a file in OUT, so the same command resumes an
interrupted run. ``--write`` makes a page of the finished rows.

``--networks`` uses the small budget of `ablation_rows.py`, changes one setting at a time, and
compares each row with the unchanged one on the same materials. ``--blocks`` runs `best` without one
block, and with one block alone. ``--sizes`` runs learning curves: the training set of a fold is
shuffled once, and models are trained on its first 50, 100, … materials.
"""

from __future__ import annotations

import argparse
import shutil
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ablation_rows import (
    ALL,
    BUDGET,
    COMPOSITION,
    REFERENCE,
    SIZES,
    TARGETS,
    VARIANTS,
    Variant,
    block_rows,
)
from pages import find_part

import rhosight
from rhosight import load_recipe
from rhosight.dataset import Dataset, folds, split
from rhosight.inputs.descriptors.blocks import compute_block_table, to_blocks
from rhosight.inputs.tensors import Inputs
from rhosight.metrics import r2_score, rmse
from rhosight.models.baselines.baselines import compute_features_of_baselines, make_baseline
from rhosight.models.gaussian_process.fitting import make_committee
from rhosight.models.gaussian_process.recipe import DescriptorRecipe
from rhosight.models.inputs import find_prototypes, make_inputs
from rhosight.networks.recipe import Recipe
from rhosight.storage import open_run, replacing
from rhosight.training.folds import prepare_fold
from rhosight.training.stages import EncoderCache, StageResult, train


class Bench:
    """Hold the dataset, its folds, and the files of finished rows."""

    def __init__(self, out: Path):
        self.out = out
        whole = rhosight.load_dataset("mp-fcc")
        self.dataset: Dataset = whole[split(whole)[0]]  # the test set is not used
        self.targets = list(Recipe().targets)
        self.labels = self.dataset.targets[self.targets].to_numpy(dtype=float)
        self.folds = folds(self.dataset, 5, 0, "formula")
        settings = {"budget": BUDGET, "dataset_sha256": self.dataset.fingerprint()}
        open_run(out, settings)
        self.elements: dict[tuple, Any] = {}

    @cached_property
    def best(self) -> pd.DataFrame:
        """Return the features that `best` uses, for every material."""
        file = self.out / "blocks.parquet"
        if not file.exists():
            table = compute_block_table(self.dataset.densities, DescriptorRecipe().blocks)
            with replacing(file) as draft:
                table.to_parquet(draft)
        return pd.read_parquet(file)

    def missing(self, kind: str, group: str, name: str, fold: int) -> Path | None:
        """Return the file for a row of a fold, or None if the file exists."""
        key = f"{zlib.crc32(f'{group}/{name}'.encode()):08x}-{fold}.parquet"
        file = self.out / kind / key
        return None if file.exists() else file

    def keep(
        self, file: Path, group: str, found: dict[str, np.ndarray], fold: int, size: int
    ) -> None:
        """Write predictions of the validation set, shape (materials, targets) each."""
        rows = self.folds[fold][1]
        frames = [
            pd.DataFrame(
                {
                    "group": group,
                    "model": name,
                    "repeat": 0,
                    "fold": fold,
                    "size": size,
                    "target": target,
                    "material_id": [self.dataset.ids[i] for i in rows],
                    "true": self.labels[rows, column],
                    "predicted": values[:, column],
                }
            ).dropna(subset="true")
            for name, values in found.items()
            for column, target in enumerate(self.targets)
        ]
        file.parent.mkdir(exist_ok=True)
        with replacing(file) as draft:
            pd.concat(frames, ignore_index=True).to_parquet(draft)
        print(f"fold {fold}, {size} materials: {group} {', '.join(found)}", flush=True)

    def network(
        self, recipe: Recipe, inputs: Inputs, rows: np.ndarray, fold: int, folder: Path | None
    ) -> dict[str, np.ndarray]:
        """Return predictions of the validation set after the last stage, per modality."""
        found: dict[str, np.ndarray] = {}

        def on_stage(result: StageResult) -> None:
            found[result.modality] = result.predict(self.folds[fold][1])

        key = recipe.text.backbone, recipe.text.element_steps, recipe.seed
        cache = EncoderCache(elements=self.elements.get(key))
        train(recipe, prepare_fold(recipe, self.dataset, inputs, rows), cache, folder, on_stage)
        if cache.elements is not None:
            self.elements[key] = cache.elements
        return found

    def inputs(self, recipe: Recipe) -> Inputs:
        return make_inputs(self.dataset, recipe, prototypes=find_prototypes(self.dataset, recipe))


def run_networks(bench: Bench, numbers: list[int]) -> None:
    """Run all variants fold by fold.

    An interrupted run therefore still gives a complete table for the finished folds.
    """
    for fold in numbers:
        rows = bench.folds[fold][0]
        for variant in VARIANTS:
            file = bench.missing("networks", variant.group, variant.name, fold)
            if file is None:
                continue
            recipe = variant.made()
            folder = stages(bench, variant, fold)
            found = bench.network(recipe, bench.inputs(recipe), rows, fold, folder)
            if variant.group == "modalities":
                # keep only the results of this variant; other rows have the rest
                own = [
                    m
                    for m in found
                    if "descriptors" in m or (m != "image" and not recipe.descriptors)
                ]
                blocks = f" ({variant.name})" if recipe.descriptors else ""
                named = {f"{m}{blocks}": found[m] for m in own}
            else:
                named = {variant.name: found[recipe.modality]}
            bench.keep(file, variant.group, named, fold, len(rows))
            if variant.name not in (REFERENCE, "image+text"):  # other variants share these networks
                shutil.rmtree(folder)


def stages(bench: Bench, variant: Variant, fold: int) -> Path:
    """Return the run folder of a variant.

    Modalities share the image and text networks, because these do not depend on the stacked model.
    """
    folder = bench.out / "stages" / f"{fold}-{zlib.crc32(variant.name.encode()):08x}"
    if variant.group == "modalities":
        for name in (REFERENCE, "image+text"):
            other = bench.out / "stages" / f"{fold}-{zlib.crc32(name.encode()):08x}"
            for part in ("image-head", "image-fine-tuning", "text-head", "text-fine-tuning"):
                if (other / part / "history.json").exists() and not (folder / part).exists():
                    shutil.copytree(other / part, folder / part)
    return folder


def run_blocks(bench: Bench, numbers: list[int]) -> None:
    """Run `best` without each block, and with each block alone."""
    for fold in numbers:
        for group, name, kernels in block_rows():
            if file := bench.missing("blocks", group, name, fold):
                recipe = DescriptorRecipe(kernels=kernels)
                found = descriptors(bench, recipe, bench.folds[fold][0], fold)
                bench.keep(file, group, {name: found}, fold, len(bench.folds[fold][0]))


def descriptors(bench: Bench, recipe: DescriptorRecipe, rows: np.ndarray, fold: int) -> np.ndarray:
    """Train Gaussian processes on some rows and predict the validation set."""
    prototypes = sorted(set(bench.best["prototype"].iloc[rows]))
    learn, ask = (
        to_blocks(bench.best.iloc[part], prototypes) for part in (rows, bench.folds[fold][1])
    )
    return make_committee(recipe, learn).fit(learn, bench.labels[rows]).predict(ask)


def run_sizes(bench: Bench, numbers: list[int]) -> None:
    """Run the learning curves, starting with the cheapest models."""
    features = compute_features_of_baselines([COMPOSITION], bench.dataset.densities)[COMPOSITION]
    recipe = Variant("", "", {"modality": "image+text"}).made()
    inputs: Inputs | None = None
    for fold, size, rows in subsets(bench, numbers):
        if file := bench.missing("sizes", "descriptors", str(size), fold):
            found = {
                name: descriptors(bench, load_recipe(name), rows, fold)
                for name in ("best", "no-dft")
            }
            found[COMPOSITION] = np.column_stack(
                [
                    make_baseline(COMPOSITION, 0)
                    .fit(features.iloc[known], bench.labels[known, column])
                    .predict(features.iloc[bench.folds[fold][1]])
                    for column in range(len(bench.targets))
                    for known in [rows[~np.isnan(bench.labels[rows, column])]]
                ]
            )
            bench.keep(file, "", found, fold, size)
    for fold, size, rows in subsets(bench, numbers):
        if file := bench.missing("sizes", "networks", str(size), fold):
            inputs = inputs or bench.inputs(recipe)
            bench.keep(file, "", bench.network(recipe, inputs, rows, fold, None), fold, size)


def subsets(bench: Bench, numbers: list[int]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (fold, size, rows); a larger training set contains all smaller ones."""
    for fold in numbers:
        rows = np.random.default_rng(fold).permutation(bench.folds[fold][0])
        for size in (*SIZES, len(rows)):
            yield fold, size, rows[:size]


def read(out: Path, kind: str) -> pd.DataFrame:
    """Return all finished rows of a kind."""
    files = sorted((out / kind).glob("*.parquet"))
    return pd.concat(map(pd.read_parquet, files), ignore_index=True) if files else pd.DataFrame()


def compared(found: pd.DataFrame, group: str, name: str, reference: str) -> dict[str, Any]:
    """Return R² of each target and the change of the error from the reference.

    Errors are compared on the same materials. They are |error| in standard deviations of the
    target, averaged over targets. The result has the mean difference and its standard error over
    materials.
    """
    keys = ["fold", "target", "material_id"]
    row = found[(found["group"] == group) & (found["model"] == name)].set_index(keys)
    base = found[(found["group"] == "") & (found["model"] == reference)].set_index(keys)
    base = base.loc[base.index.intersection(row.index)]
    row = row.loc[base.index]
    unit = base.index.get_level_values("target").map(base.groupby("target")["true"].std())
    error = {n: (f["predicted"] - f["true"]).abs() / unit for n, f in (("r", row), ("b", base))}
    difference = (error["r"] - error["b"]).groupby("material_id").mean()
    result: dict[str, Any] = {"folds": row.index.unique("fold").size}
    for target, part in row.groupby("target", sort=False):
        result[target] = r2_score(part["true"].to_numpy(), part["predicted"].to_numpy())
    result["difference"] = float(difference.mean())
    result["error"] = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    result["rows"] = len(row)
    return result


def place(group: str, model: str) -> tuple[int, int, str]:
    """Return the sort key of a network in the table, in the order of :data:`VARIANTS`."""
    groups = list(dict.fromkeys(variant.group for variant in VARIANTS))
    names = [variant.name for variant in VARIANTS]
    number = next((n for n, name in enumerate(names) if model.endswith((name, f"({name})"))), -1)
    return groups.index(group), number, model


def table(found: pd.DataFrame, reference: str, rows: list[tuple[str, str]]) -> list[str]:
    """Return a Markdown table with a line for each (group, model)."""
    head = ["", *(f"R², {name}" for name in TARGETS.values()), "change of the error, %", "folds"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for group, name in rows:
        row = compared(found, group, name, reference)
        scores = [f"{row[target]:.3f}" for target in TARGETS]
        change = f"{100 * row['difference']:+.1f} ± {100 * row['error']:.1f}"
        if (group, name) == ("", reference):
            change = ""
        label = f"{group}: {name}" if group else name
        lines.append(f"| {label} | {' | '.join(scores)} | {change} | {row['folds']} |")
    return lines


def curves(found: pd.DataFrame) -> list[str]:
    """Return Markdown tables of R² and RMSE for each number of training materials."""
    found = found.assign(size=found["size"].astype(float).where(found["size"].isin(SIZES), np.inf))
    sizes = sorted(found["size"].unique())
    names = [f"{size:g}" if np.isfinite(size) else "all" for size in sizes]
    lines = []
    for target, name in TARGETS.items():
        lines += ["", f"| {name}: R², RMSE | {' | '.join(names)} |"]
        lines.append(f"|{' --- |' * (len(sizes) + 1)}")
        here = found[found["target"] == target]
        for model in sorted(here["model"].unique()):
            cells = []
            for size in sizes:
                part = here[(here["model"] == model) & (here["size"] == size)]
                pair = part["true"].to_numpy(), part["predicted"].to_numpy()
                cells.append(f"{r2_score(*pair):.3f}, {rmse(*pair):.3g}" if len(part) else "")
            lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def finished(out: Path, kind: str, planned: int) -> str:
    """Return a sentence on how many runs of a part are finished."""
    numbers = [file.stem.rpartition("-")[2] for file in (out / kind).glob("*.parquet")]
    done = (f"{numbers.count(n)} of {planned} runs of fold {n}" for n in sorted(set(numbers)))
    return f"Finished: {', '.join(done)}."


def page(out: Path) -> str:
    """Return the Markdown page of all finished results."""
    budget = Variant("", "").made()
    lines = """# Ablations

This page shows the effect of each design choice on folds of the training set of `mp-fcc`. The test
set was not used. The page is generated by

    python benchmarks/ablations.py OUT
    python benchmarks/ablations.py OUT --write docs/ablations.md

Folds are numbered 0 to 4, as `folds(dataset, 5, 0, "formula")` divides the training set. R² is
computed over all validation materials of the folds of a row. The change of the error is the change
of the mean |error|, in hundredths of the target's standard deviation, averaged over targets. It
refers to the same materials in both rows; ± is its standard error over materials. The variation
between seeds is not included.
""".splitlines()
    networks = read(out, "networks")
    if len(networks):
        size, epochs = budget.image.settings.size, budget.epochs()
        stacked = budget.epochs(stacked=True)
        lines += f"""
## Networks

All networks have a small budget and one seed: {size} pixels, {budget.views} views, {epochs[0]} and
{epochs[1]} epochs ({stacked[0]} and {stacked[1]} for the stacked
model). The table measures the effect of a setting at this budget, not the best possible scores.
Each row changes one setting of the first row, an image network with the default channels. With two
or more modalities, the image and text networks are the same in all rows.

{finished(out, "networks", len(VARIANTS))}
""".splitlines()
        rows = networks[["group", "model"]].drop_duplicates().itertuples(index=False)
        order = sorted(((r.group, r.model) for r in rows), key=lambda row: place(*row))
        lines += ["", *table(networks, REFERENCE, order)]
    rows = block_rows()
    blocks = read(out, "blocks")
    if len(blocks):
        lines += f"""
## Blocks of `best`

The Gaussian processes of `best` without one block, and one Gaussian process of one block alone.

{finished(out, "blocks", len(rows))}
""".splitlines()
        there = set(blocks[["group", "model"]].itertuples(index=False, name=None))
        lines += ["", *table(blocks, ALL, [row[:2] for row in rows if row[:2] in there])]
    sizes = read(out, "sizes")
    if len(sizes):
        said = " Networks have the small budget described above." if len(networks) else ""
        lines += f"""
## Learning curves

The training set of each fold is shuffled once; a model of size n is trained on its first n
materials. *all* are about 275.{said}

{finished(out, "sizes", 2 * (len(SIZES) + 1))}
""".splitlines()
        lines += curves(sizes)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    for name, what in (
        ("networks", "change one setting of the networks at a time"),
        ("blocks", "run `best` without each block and with each block alone"),
        ("sizes", "compute learning curves"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=what)
    parser.add_argument("--folds", type=int, nargs="+", choices=range(5), default=[1, 2])
    parser.add_argument(
        "--write", type=Path, help="write a page of the finished results and run nothing"
    )
    arguments = parser.parse_args()
    if arguments.write:
        encoders = find_part(arguments.write.read_text(encoding="utf-8"), "encoders")
        text = page(arguments.out) + (f"\n{encoders}" if encoders else "")
        arguments.write.write_text(text, encoding="utf-8")
        return
    torch.set_num_threads(1)
    bench = Bench(arguments.out)
    runs = {"networks": run_networks, "sizes": run_sizes, "blocks": run_blocks}
    chosen = [name for name in runs if getattr(arguments, name)] or list(runs)
    for name in chosen:
        runs[name](bench, arguments.folds)


if __name__ == "__main__":
    main()
