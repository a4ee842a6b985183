"""Measure deletion curves and run time of explanations on held-out materials.

    python benchmarks/explaining.py OUT [--materials N] [--orders N] [--size PIXELS]

`best` and a network of image and text are trained on four fifths of the training set of `mp-fcc`.
The materials of the validation fold are explained. The test set is not used. Deletion curves show
whether attributions identify important inputs: pieces of the input are removed, in order of
decreasing attribution or in random orders, and the change of the prediction is recorded
(`rhosight.explain.deletion`). The script prints the areas between the curves and random ones for
each target, the time per explanation, the difference between the sum of the attributions and the
prediction, and the dominant modality by target and chemistry. It writes the curves to OUT as
Parquet files and a figure. The network is saved there and is not trained again by the same command.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import rhosight
from rhosight.dataset import Dataset, folds, split
from rhosight.explain import Explanations
from rhosight.explain.deletion import deletion_areas, deletion_curves
from rhosight.explain.explain import explain
from rhosight.inputs.image import ImageSettings
from rhosight.models.base import SavedModel

matplotlib.use("Agg")


def models(train: Dataset, size: int, out: Path) -> dict[str, SavedModel]:
    """Train both models on the same materials, or load the network if it exists."""
    folder = out / f"network-{size}"
    if folder.exists():
        network = rhosight.load_model(folder)
        if set(network.about["training_ids"]) != set(train.ids):
            raise SystemExit(
                f"{folder}: the model has other training materials. Choose another OUT."
            )
    else:
        recipe = rhosight.load_recipe("quick", image={"settings": ImageSettings(size=size)})
        network = rhosight.PropertyModel(recipe).fit(train, run_dir=out / f"run-{size}")
        network.save_pretrained(folder)
    return {"best": rhosight.DescriptorModel().fit(train), "network": network}


def gaps(found: Explanations, spread: dict[str, float]) -> pd.DataFrame:
    """Return the median and maximum residual of attributions, relative to σ."""
    rows = [
        (what, target, abs(gap) / spread[target])
        for one in found
        for what, gaps in one.gaps.items()
        for target, gap in gaps.items()
    ]
    table = pd.DataFrame(rows, columns=["what", "target", "gap"])
    return table.groupby(["what", "target"], sort=False)["gap"].agg(["median", "max"])


def draw(curves: dict[str, pd.DataFrame], out: Path) -> None:
    """Draw the mean curves by attribution and the range of random orders."""
    targets = next(iter(curves.values()))["target"].unique()
    figure = Figure(figsize=(4 * len(targets), 3.2 * len(curves)), layout="constrained")
    axes = figure.subplots(len(curves), len(targets), squeeze=False)
    for line, (what, table) in zip(axes, curves.items(), strict=True):
        for axis, target in zip(line, targets, strict=True):
            own = table[table["target"] == target]
            means = own.groupby(["order", "deleted"])["change"].mean().unstack("order")
            chance = means.drop(columns="attribution")
            axis.fill_between(
                means.index, chance.min(axis=1), chance.max(axis=1), color="#BDBDBD", label="random"
            )
            axis.plot(means.index, means["attribution"], "o-", ms=3, label="by attribution")
            axis.set(title=f"{what}: {target}", xlabel="fraction of pieces removed")
        line[0].set_ylabel("change of the prediction (σ)")
    axes[0, 0].legend()
    figure.savefig(out / "deletion.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--materials", type=int, default=69, help="number of materials of the validation fold"
    )
    parser.add_argument(
        "--orders", type=int, default=10, help="number of random orders per material"
    )
    parser.add_argument(
        "--size", type=int, default=96, help="pixels along each side of the network's image"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    dataset = rhosight.load_dataset("mp-fcc")
    part = dataset[split(dataset)[0]]
    train, validation = folds(part, n_splits=5, seed=0)[0]
    trained = models(part[train], arguments.size, arguments.out)
    some = part[validation][: arguments.materials]
    spread = part[train].targets.std().to_dict()
    curves = {}
    for name, modalities in (("best", ["descriptors"]), ("network", ["image", "text"])):
        model = trained[name]
        explain(model, some[:1])  # compute the background once, before timing
        start = time.perf_counter()
        found = explain(model, some)
        each = (time.perf_counter() - start) / len(some)
        print(f"\n{name}: {each:.2f} s per material, {len(some)} materials")
        predicted = model.predict(some)
        for target in model.targets:
            total = [e.base[target] + e.modalities[target].sum() for e in found]
            missed = np.abs(total - predicted[target]).max()
            print(f"{target}: sums differ from predictions by at most {missed:.1e}")
        print(gaps(found, spread).round(4).to_string())
        print(found.summary()["part"].unstack("modality").round(2).to_string())
        for modality in modalities:
            table = deletion_curves(model, some, modality, arguments.orders)
            table.to_parquet(arguments.out / f"{modality}.parquet")
            print(f"\n{modality}\n{deletion_areas(table).round(3).to_string()}")
            curves[modality] = table
    draw(curves, arguments.out)


if __name__ == "__main__":
    main()
