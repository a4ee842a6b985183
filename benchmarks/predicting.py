"""Check predictions from CHGCAR files of the test set.

    rhosight crossval mp-fcc --out runs/crossval
    rhosight train mp-fcc --out model
    python benchmarks/predicting.py model runs/crossval/scores.csv

The model must be trained with the default split. The script writes a CHGCAR for each test material.
It predicts from these files with the command line and from the dataset with the library, and checks
that the predictions agree. It also counts the predictions within twice the cross-validated RMSE
(mean over the validation folds).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

import rhosight

TOLERANCE = 1e-4  # relative, or absolute near zero; a CHGCAR rounds its cell to 1e-6 Å
SHARE = 0.9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("scores", type=Path, help="scores.csv of the cross-validation")
    arguments = parser.parse_args()
    dataset = rhosight.load_dataset("mp-fcc")
    _, rows = rhosight.split(dataset, test_fraction=0.15, seed=0)
    test = dataset[rows]
    model = rhosight.PropertyModel.from_pretrained(arguments.model)
    expected = model.predict(test)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for density in test.densities:
            files.append(Path(folder) / f"{density.name}.CHGCAR")
            density.to_chgcar(files[-1])
        started = time.perf_counter()
        command = [sys.executable, "-m", "rhosight", "predict", str(arguments.model)]
        done = subprocess.run(
            [*command, *map(str, files), "--format", "json"], capture_output=True, check=True
        )
        seconds = time.perf_counter() - started
    found = pd.DataFrame(json.loads(done.stdout)["predictions"]).set_index("material")
    found.index = [Path(name).name.removesuffix(".CHGCAR") for name in found.index]
    worst = (found - expected).abs().max()
    same = (found - expected).abs() <= TOLERANCE * (1 + expected.abs())
    scores = pd.read_csv(arguments.scores)
    chosen = scores.query(
        f"model == '{model.recipe.modality}' and stage == 'fine-tuning' and part == 'validation'"
    )
    rmse = chosen.groupby("target")["rmse"].mean()
    off = (found - test.targets[expected.columns]).abs()
    print(f"{len(test)} CHGCAR files in {seconds:.0f} s")
    failed = False
    for target in expected:
        known = off[target].dropna()
        share = float((known <= 2 * rmse[target]).mean())
        failed |= share < SHARE or not same[target].all()
        print(
            f"{target}: differs from the dataset by at most {worst[target]:.1e} "
            f"{model.units[target]}; {share:.0%} of {len(known)} within 2 × {rmse[target]:.3g} "
            f"{model.units[target]}"
        )
    whole = off / (2 * rmse)
    print(f"all targets together: {float((whole.stack() <= 1).mean()):.1%}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
