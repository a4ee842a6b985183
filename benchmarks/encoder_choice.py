"""Choose the images, layers, statistics and texts of encoders by nested cross-validation.

    python benchmarks/encoder_choice.py OUT [--repeats 1] [--more]

Candidates are the shipped recipes `image`, `text` and `image+text` and alternatives with one
difference each (`encoder_rows.py`). In every outer fold of the training set of `mp-fcc`, each
candidate is fitted to the outer training set, and its errors on five inner folds are those of the
fitted process without the labels of the inner fold; hyperparameters are fitted once. For each
recipe, the candidate with the lowest inner error, mean over the standardised targets, is selected
and scored on the outer fold, which no choice has seen. The table of all candidates on the same
outer folds is the ablation; the difference between the lowest of these scores, or that of the
shipped recipe, and the score of the selection is the optimism of choosing by hand. `--more` adds
candidates whose features have to be computed first; they take no part in the selection. The test
set is not used. Each fold is saved in OUT, so the same command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from encoder_rows import FAMILIES, SHIPPED, TABLES, Candidate, list_candidates, narrow, read_table
from encoders import as_frame

import rhosight
from rhosight.dataset import Dataset, folds, split
from rhosight.evaluation.statistics import Fold, compare, fold_scores, repeated_folds
from rhosight.inputs.descriptors.blocks import to_blocks
from rhosight.models.gaussian_process.fitting import make_committee
from rhosight.storage import replacing

ERROR = "inner_error"
KEYS = ["family", "repeat", "fold"]


def run_part(
    dataset: Dataset, candidate: Candidate, table: pd.DataFrame, part: Fold
) -> pd.DataFrame:
    """Return predictions of an outer fold, with the error on the inner folds in a column."""
    targets = list(candidate.recipe.targets)
    labels = dataset.targets[targets].to_numpy(dtype=float)
    scales = candidate.recipe.target_scales
    prototypes = sorted(set(table["prototype"].iloc[part.train]))
    blocks = to_blocks(table.iloc[part.train], prototypes)
    committee = make_committee(candidate.recipe, blocks)
    committee.fit(blocks, scales.learn(labels[part.train]))
    groups = np.empty(len(part.train), dtype=int)
    for number, (_, inner) in enumerate(folds(dataset[part.train], 5, part.repeat)):
        groups[inner] = number
    left_out = scales.restore(committee.leave_out(groups)[0])
    squares = np.nanmean((left_out - labels[part.train]) ** 2, axis=0)
    error = float(np.sqrt(squares / np.nanvar(labels[part.train], axis=0)).mean())
    outer = to_blocks(table.iloc[part.validation], prototypes)
    values = scales.restore(committee.predict_with_std(outer)[0])
    frame = as_frame(dataset, candidate.name, part, values)
    return frame.assign(family=candidate.family, **{ERROR: error})


def run(dataset: Dataset, candidates: list[Candidate], repeats: int, out: Path) -> pd.DataFrame:
    """Return the predictions of all candidates on all outer folds."""
    parts = list(repeated_folds(dataset, repeats=repeats, indices=split(dataset)[0]))
    rows = []
    for candidate in candidates:
        table = None
        for part in parts:
            name = f"{candidate.family}, {candidate.name}"
            file = out / f"{name}-{part.repeat}-{part.fold}.parquet"
            if not file.exists():
                if table is None:
                    wide = read_table(dataset, candidate.table, out / "features")
                    table = narrow(wide, TABLES[candidate.table], candidate.recipe)
                    print(name, flush=True)
                frame = run_part(dataset, candidate, table, part)
                with replacing(file) as draft:
                    frame.to_parquet(draft)
            rows.append(pd.read_parquet(file))
    return pd.concat(rows, ignore_index=True)


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the outer predictions of the candidates with the lowest inner errors."""
    errors = rows.groupby([*KEYS, "model"], sort=False)[ERROR].first()
    winners = errors.groupby(KEYS, sort=False).idxmin()
    chosen = rows.set_index([*KEYS, "model"]).loc[list(winners)].reset_index()
    return chosen.assign(choice=chosen["model"], model="chosen by inner folds")


def report(rows: pd.DataFrame, chosen: pd.DataFrame) -> None:
    """Print the candidates' scores, those of the choice, and the optimism."""
    for family in FAMILIES:
        own, picked = (frame[frame["family"] == family] for frame in (rows, chosen))
        both = pd.concat([own, picked], ignore_index=True)
        scores = fold_scores(both)
        table = scores.groupby(["model", "target"], sort=False)[["r2", "rmse"]].mean()
        print(f"\n{family}\n{table.unstack('target').round(4).to_string()}")
        names = [name for name in both["model"].unique() if name != SHIPPED]
        tests = [compare(both, name, SHIPPED).assign(model=name) for name in names]
        columns = ["model", "relative", "p"]
        print(f"\nagainst the shipped recipe\n{pd.concat(tests)[columns].round(4).to_string()}")
        counts = picked.groupby(KEYS, sort=False)["choice"].first().value_counts()
        print(f"\nselections of each candidate\n{counts.to_string()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--more", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    dataset = rhosight.load_dataset("mp-fcc")
    candidates = list_candidates()
    wanted = [one for one in candidates if one.chosen or arguments.more]
    rows = run(dataset, wanted, arguments.repeats, arguments.out)
    able = {(one.family, one.name) for one in candidates if one.chosen}
    pairs = pd.MultiIndex.from_frame(rows[["family", "model"]])
    report(rows, select(rows[pairs.isin(list(able))]))


if __name__ == "__main__":
    main()
