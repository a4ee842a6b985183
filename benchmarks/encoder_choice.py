"""Choose the images, layers, statistics and texts of encoders by nested cross-validation.

    python benchmarks/encoder_choice.py OUT [--repeats 1] [--more] [--write docs/ablations.md]

Candidates are the recipes `image`, `text` and `image+text` as they were chosen by hand and
alternatives with one or two differences (`encoder_rows.py`). In every outer fold of the training
set of `mp-fcc`, each candidate is fitted to the outer training set, and its errors on five inner
folds are those of the fitted process without the labels of the inner fold; hyperparameters are
fitted once. For each recipe, the candidate with the lowest inner error, mean over the standardised
targets, is selected and scored on the outer fold, which no choice has seen. The table of all
candidates on the same outer folds is the ablation; the difference between the lowest of these
scores, or that of the recipe chosen by hand, and the score of the selection is the optimism.
`--more` adds candidates whose features have to be computed first. They take no part in the
selection, and nor do image and text beside the composition. The test set is not used. Each fold is
saved in OUT, so the same command resumes an interrupted run. `--write` puts the tables into a page.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from encoder_rows import FAMILIES, TABLES, Candidate, list_candidates, narrow, read_table
from encoders import as_frame
from pages import write_part

import rhosight
from rhosight.dataset import Dataset, folds, split
from rhosight.evaluation.statistics import Fold, compare, fold_scores, repeated_folds
from rhosight.inputs.descriptors.blocks import to_blocks
from rhosight.models.gaussian_process.fitting import make_committee
from rhosight.storage import replacing

ERROR = "inner_error"
KEYS = ["family", "repeat", "fold"]
TARGETS = {
    "formation_energy_per_atom": "formation energy, eV/atom",
    "efermi": "Fermi energy, eV",
    "bulk_modulus_vrh": "bulk modulus, GPa",
}
PAGE = """## Encoders read by Gaussian processes

Each row changes one setting of the recipe in the first row of its table: the images, layers,
statistics and texts that Gaussian processes read. Scores are means over five folds of the training
set (repeats: {repeats}). *change* is that of the RMSE against the first row, mean over the targets.
*chosen by inner folds* takes in each fold the candidate with the lowest error on five inner folds
of its training set, so no choice has seen the fold that it is scored on.

    python benchmarks/encoder_choice.py OUT --write docs/ablations.md
"""


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
    for family, first in FAMILIES.items():
        own, picked = (frame[frame["family"] == family] for frame in (rows, chosen))
        both = pd.concat([own, picked], ignore_index=True)
        scores = fold_scores(both)
        table = scores.groupby(["model", "target"], sort=False)[["r2", "rmse"]].mean()
        print(f"\n{family}\n{table.unstack('target').round(4).to_string()}")
        names = [name for name in both["model"].unique() if name != first]
        tests = [compare(both, name, first).assign(model=name) for name in names]
        columns = ["model", "relative", "p"]
        print(f"\nagainst {first!r}\n{pd.concat(tests)[columns].round(4).to_string()}")
        if picked.empty:
            continue
        counts = picked.groupby(KEYS, sort=False)["choice"].first().value_counts()
        print(f"\nselections of each candidate\n{counts.to_string()}")


def write_page(page: Path, rows: pd.DataFrame, chosen: pd.DataFrame) -> None:
    """Write the candidates' scores and those of the choice into a page."""
    lines = [PAGE.format(repeats=rows["repeat"].nunique()).strip()]
    for family, first in FAMILIES.items():
        own = rows[rows["family"] == family]
        both = pd.concat([own, chosen[chosen["family"] == family]], ignore_index=True)
        means = fold_scores(both).groupby(["model", "target"], sort=False)[["r2", "rmse"]].mean()
        targets = list(dict.fromkeys(both["target"]))
        heads = [f"{TARGETS[name]}: R², RMSE" for name in targets]
        lines += ["", f"| `{family}` | {' | '.join(heads)} | change, % |", "| --- " * 5 + "|"]
        for name in both["model"].unique():
            cells = [f"{means.loc[name, t].r2:.3f}, {means.loc[name, t].rmse:.3g}" for t in targets]
            change = ""
            if name != first:
                ratios = [means.loc[name, t].rmse / means.loc[first, t].rmse for t in targets]
                change = f"{100 * (np.mean(ratios) - 1):+.1f}"
            lines.append(f"| {name} | {' | '.join(cells)} | {change} |")
    write_part(page, "encoders", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--more", action="store_true")
    parser.add_argument("--write", type=Path, help="page for the tables")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    dataset = rhosight.load_dataset("mp-fcc")
    candidates = list_candidates()
    wanted = [one for one in candidates if one.table == "shipped" or arguments.more]
    rows = run(dataset, wanted, arguments.repeats, arguments.out)
    able = {(one.family, one.name) for one in candidates if one.chosen}
    pairs = pd.MultiIndex.from_frame(rows[["family", "model"]])
    chosen = select(rows[pairs.isin(list(able))])
    report(rows, chosen)
    if arguments.write:
        write_page(arguments.write, rows, chosen)


if __name__ == "__main__":
    main()
