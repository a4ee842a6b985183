"""Choose the blocks and kernels of `best` by nested cross-validation.

    python benchmarks/choosing.py OUT [--repeats 1] [--jobs 2]

Candidates are the lean kernel, the full kernel and the mean of both, each with three sets of
blocks: blocks of the structure; these and `interstitial`, the part of the density on which codes
agree; all blocks. In every outer fold of the training set of `mp-fcc`, the candidate with the
lowest RMSE over five inner folds is selected for each target. It predicts the outer fold, which is
not used for the selection. This gives the score of the selection procedure. For comparison, the
table also shows the score of each candidate on the same outer folds; the lowest of these nine
scores is optimistic. Finally, five inner folds of the whole training set select the candidates of
the shipped model. The test set is not used. Each fold is saved in OUT, so the same command resumes
an interrupted run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

import rhosight
from rhosight.dataset import Dataset, folds, split
from rhosight.evaluation.statistics import repeated_folds
from rhosight.inputs.descriptors.blocks import (
    ALL_BLOCKS,
    SPARSE,
    STATISTICS_BLOCKS,
    compute_block_table,
    to_blocks,
)
from rhosight.inputs.descriptors.frame import BLOCKS
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.process import GaussianProcess
from rhosight.models.gaussian_process.recipe import (
    ELEMENTS,
    FULL,
    FULL_STRUCTURE,
    LEAN,
    LEAN_STRUCTURE,
)
from rhosight.storage import replacing

KERNELS: dict[str, dict[str, Kernel]] = {
    "structure": {"lean": LEAN_STRUCTURE, "full": FULL_STRUCTURE},
    "interstitial": {"lean": LEAN, "full": FULL},
    "all blocks": {
        "lean": Kernel(
            alone=(*LEAN_STRUCTURE.alone, "total"),
            together=(*LEAN_STRUCTURE.together, *STATISTICS_BLOCKS),
        ),
        "full": Kernel(
            alone=(*ELEMENTS, "overlap", "packing", "charges", "energies", "potentials", "radial"),
            together=(
                *(*FULL_STRUCTURE.together, *STATISTICS_BLOCKS),
                *(name for name in BLOCKS if name not in FULL_STRUCTURE.together),
            ),
        ),
    },
}
"""Lean and full kernel of each set of blocks."""


def candidates(table: pd.DataFrame, labels: np.ndarray, learn: np.ndarray, ask: np.ndarray):
    """Train each candidate on some materials and return its predictions of others."""
    prototypes = sorted(set(table["prototype"].iloc[learn]))
    known, new = (to_blocks(table.iloc[rows], prototypes) for rows in (learn, ask))
    found = {}
    for name, kernels in KERNELS.items():
        members = {
            size: GaussianProcess(kernel.terms, linear=SPARSE).fit(known, labels[learn])
            for size, kernel in kernels.items()
        }
        for size, member in members.items():
            found[f"{name}, {size}"] = member.predict(new)
        found[f"{name}, both"] = np.mean([found[f"{name}, {s}"] for s in members], axis=0)
    return found


def errors(found: dict[str, np.ndarray], true: np.ndarray) -> pd.DataFrame:
    """Return squared errors averaged over materials, shape (candidates, targets)."""
    rows = {name: np.nanmean((values - true) ** 2, axis=0) for name, values in found.items()}
    return pd.DataFrame(rows).T


def inner(
    dataset: Dataset, table: pd.DataFrame, labels: np.ndarray, rows: np.ndarray, seed: int
) -> pd.DataFrame:
    """Return squared errors of the candidates over five folds of some rows."""
    parts = folds(dataset, 5, seed, "formula", indices=rows)
    return sum(errors(candidates(table, labels, a, b), labels[b]) for a, b in parts) / len(parts)


def outer(
    dataset: Dataset, table: pd.DataFrame, labels: np.ndarray, part, targets: list[str], out: Path
) -> pd.DataFrame:
    """Return the inner error and the squared outer error of each candidate."""
    file = out / f"{part.repeat}-{part.fold}.parquet"
    if file.exists():
        return pd.read_parquet(file)
    within = inner(dataset, table, labels, part.train, part.repeat)
    beyond = errors(candidates(table, labels, part.train, part.validation), labels[part.validation])
    frames = [
        pd.DataFrame({"target": target, "inner": within[c], "outer": beyond[c]})
        for c, target in enumerate(targets)
    ]
    found = pd.concat(frames).rename_axis("candidate").reset_index()
    found = found.assign(repeat=part.repeat, fold=part.fold)
    with replacing(file) as draft:
        found.to_parquet(draft)
    print(f"repeat {part.repeat}, fold {part.fold}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    dataset = rhosight.load_dataset("mp-fcc")
    training, _ = split(dataset)
    targets = list(dataset.targets)
    labels = dataset.targets.to_numpy(dtype=float)
    file = arguments.out / "blocks.parquet"
    if not file.exists():
        with replacing(file) as draft:
            compute_block_table(dataset.densities, ALL_BLOCKS).to_parquet(draft)
    table = pd.read_parquet(file)
    parts = repeated_folds(dataset, repeats=arguments.repeats, groups="formula", indices=training)
    work = delayed(outer)
    found = Parallel(n_jobs=arguments.jobs)(
        work(dataset, table, labels, part, targets, arguments.out) for part in parts
    )
    report(pd.concat(found, ignore_index=True))
    whole = inner(dataset, table, labels, training, 0)
    print("\nselected by five folds of the whole training set")
    for column, target in enumerate(targets):
        print(f"{target}: {whole[column].idxmin()}")


def report(found: pd.DataFrame) -> None:
    """Print the mean RMSE over outer folds and the selected candidates."""
    found = found.assign(rmse=np.sqrt(found["outer"]))
    keys = ["target", "repeat", "fold"]
    chosen = found.loc[found.groupby(keys)["inner"].idxmin()]
    columns = {"selected by inner folds": chosen.groupby("target")["rmse"].mean()}
    for name, rows in found.groupby("candidate", sort=False):
        columns[f"always {name}"] = rows.groupby("target")["rmse"].mean()
    print(f"RMSE, mean over {found.groupby(keys[1:]).ngroups} outer folds")
    print(pd.DataFrame(columns).T[list(dict.fromkeys(found["target"]))].round(4).to_string())
    print("\nnumber of selections of each candidate")
    print(chosen.groupby("target", sort=False)["candidate"].value_counts().to_string())


if __name__ == "__main__":
    main()
