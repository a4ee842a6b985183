"""Analyse the out-of-fold residuals of `best` by material and chemistry.

    python benchmarks/residuals.py OUT

OUT is the folder of a finished `benchmarks/best.py OUT`. The test set is not used. The error of a
material is its root mean square over repeats. For each target, the script prints the share of the
squared error in the worst twentieth of the materials, the share that remains after averaging the
repeats (it does not depend on the folds), the correlation of the residuals of other models with
those of `best`, the worst materials, and the RMSE of each class of compounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from pymatgen.core import Composition

import rhosight
from rhosight.explain.chemistry import CLASSES, chemical_class

MAGNETIC = {"Cr", "Mn", "Fe", "Co"}
"""Elements whose open 3d shells often carry a magnetic moment."""

WORST, SHOWN = 0.05, 10


def rms(values: pd.Series) -> float:
    return float(np.sqrt((values**2).mean()))


def by_material(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return mean residual, root mean square and other models, per material_id."""
    best = predictions[predictions["model"] == "best"].groupby("material_id")["residual"]
    others = predictions.pivot_table(index="material_id", columns="model", values="residual")
    found = pd.DataFrame({"mean": best.mean(), "rms": best.apply(rms)})
    return found.join(others.drop(columns="best")).sort_values("rms", ascending=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    files = sorted(parser.parse_args().out.glob("[0-9]*-*.parquet"))
    if not files:
        raise SystemExit("OUT contains no folds. Run `python benchmarks/best.py OUT` first.")
    predictions = pd.concat(map(pd.read_parquet, files), ignore_index=True)
    predictions["residual"] = predictions["predicted"] - predictions["true"]
    table = rhosight.load_dataset("mp-fcc").table
    formula = table["formula"]
    for target, part in predictions.groupby("target", sort=False):
        found = by_material(part)
        squares = found["rms"] ** 2
        worst = squares.head(round(WORST * len(found))).sum() / squares.sum()
        print(f"\n{target}: RMSE {rms(found['rms']):.3f}, median {found['rms'].median():.3f}")
        print(f"the worst {WORST:.0%} of materials contribute {worst:.0%} of the squared error")
        print(f"{(found['mean'] ** 2).sum() / squares.sum():.0%} of it is the same in all repeats")
        print("correlation with the residuals of: ", end="")
        others = found.drop(columns=["mean", "rms"])
        print(", ".join(f"{n} {v:.2f}" for n, v in others.corrwith(found["mean"]).items()))
        for name, row in found.head(SHOWN).iterrows():
            print(f"    {formula[name]:12s} {row['mean']:+.2f}")
        formulas = formula[found.index]
        classes = formulas.map(chemical_class)
        groups = found["rms"].groupby(classes).agg(rmse=rms, materials="size")
        print(groups.reindex([name for name in CLASSES if name in groups.index]).round(3))
        atoms = [{element.symbol for element in Composition(text)} for text in formulas]
        magnetic = np.array([bool(MAGNETIC & own) for own in atoms])
        print(f"with {', '.join(sorted(MAGNETIC))}: {rms(found['rms'][magnetic]):.3f} ", end="")
        print(f"({magnetic.sum()}), without {rms(found['rms'][~magnetic]):.3f}")


if __name__ == "__main__":
    main()
