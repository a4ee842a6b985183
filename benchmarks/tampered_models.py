"""Change a model folder in hundreds of ways, load it and predict.

Each change must end in a message of one line, or in finite predictions. Prints the counts, and the
changes that do neither. Of the 454 changes of the default, 345 were refused and 109 predicted.

    python benchmarks/tampered_models.py --changes 400
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import rhosight
from rhosight import RhosightError, load_model
from rhosight.models.folder import MODELS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tampering import NAMED, copy_model, random_changes

SLOW = 10.0  # s of processor time


def main() -> None:
    """Try all named changes and some random ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="no-dft", help="a bundled model")
    parser.add_argument("--changes", type=int, default=400, help="random changes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = MODELS / options.model
    material = rhosight.load_dataset("mp-fcc")["mp-149"].density
    counts: Counter[str] = Counter()
    changes = [*NAMED.items(), *random_changes(source, options.changes, options.seed)]
    for number, (name, change) in enumerate(changes):
        began = time.process_time()
        with tempfile.TemporaryDirectory() as above:
            folder = copy_model(source, Path(above) / "model")
            try:
                change(folder)
            except (ValueError, KeyError, TypeError, IndexError):
                continue  # it does not apply
            result = try_model(folder, material)
        if time.process_time() - began > SLOW:
            result = "slow"
        counts[result] += 1
        if result not in ("refused", "predicted") or (name in NAMED and result != "refused"):
            print(f"{number}: {name}: {result}", flush=True)
    print(dict(counts))


def try_model(folder: Path, material: rhosight.ChargeDensity) -> str:
    """Return what loading a model and predicting ends in."""
    try:
        model = load_model(folder)
        table = model.predict_intervals([material])
    except RhosightError as error:
        return "refused" if "\n" not in str(error) else "several lines"
    except Exception as error:
        return f"traceback {type(error).__name__}: {error}"
    return "predicted" if np.isfinite(table[list(model.targets)]).all(axis=None) else "not finite"


if __name__ == "__main__":
    main()
