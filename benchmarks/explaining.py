"""Do explanations name what matters? Deletion curves on held-out materials, and time.

    python benchmarks/explaining.py OUT [--materials N] [--orders N] [--size PIXELS]

`best` and a network of image and text learn from four fifths of the training part of `mp-fcc`; the
validation fold is explained, the test part is not looked at. Pieces of the input are taken away,
those with the largest attributions first or in random orders, and the prediction moves:
`rhosight.explain.deletion`. Prints areas between the curves and random ones, by target, the time of
an explanation, how far attributions are from adding up, and which modality carries which target for
which chemistries. Curves are written to OUT as Parquet and a figure. The network is kept there:
the same command does not train it again.
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
    """Trained on the same materials; the network is loaded if it is there."""
    folder = out / f"network-{size}"
    if folder.exists():
        network = rhosight.load_model(folder)
        if set(network.about["training_ids"]) != set(train.ids):
            raise SystemExit(f"{folder}: learned from other materials; choose another OUT")
    else:
        recipe = rhosight.load_recipe("quick", image={"settings": ImageSettings(size=size)})
        network = rhosight.PropertyModel(recipe).fit(train, run_dir=out / f"run-{size}")
        network.save_pretrained(folder)
    return {"best": rhosight.DescriptorModel().fit(train), "network": network}


def gaps(found: Explanations, spread: dict[str, float]) -> pd.DataFrame:
    """Largest share of a target's standard deviation that attributions leave over."""
    rows = [
        (what, target, abs(gap) / spread[target])
        for one in found
        for what, gaps in one.gaps.items()
        for target, gap in gaps.items()
    ]
    table = pd.DataFrame(rows, columns=["what", "target", "gap"])
    return table.groupby(["what", "target"], sort=False)["gap"].agg(["median", "max"])


def draw(curves: dict[str, pd.DataFrame], out: Path) -> None:
    """Mean curves: by attribution, and the range of random orders."""
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
            axis.set(title=f"{what}: {target}", xlabel="share of the pieces taken away")
        line[0].set_ylabel("change of the prediction, σ")
    axes[0, 0].legend()
    figure.savefig(out / "deletion.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--materials", type=int, default=69, help="of the validation fold")
    parser.add_argument("--orders", type=int, default=10, help="random ones, for each material")
    parser.add_argument("--size", type=int, default=96, help="pixels of the network's image")
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
        explain(model, some[:1])  # the background, made once
        start = time.perf_counter()
        found = explain(model, some)
        each = (time.perf_counter() - start) / len(some)
        print(f"\n{name}: {each:.2f} s for each of {len(some)}")
        predicted = model.predict(some)
        for target in model.targets:
            total = [e.base[target] + e.modalities[target].sum() for e in found]
            missed = np.abs(total - predicted[target]).max()
            print(f"{target}: sums miss predictions by {missed:.1e} at most")
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
