"""Measure the time of `rhosight reproduce` when all its jobs are finished.

    python benchmarks/rerunning.py [NAME ...] [--results docs/results]

The time covers reading, statistical tests and drawing. The finished jobs and the number of repeats
come from ``--results``. Each exhibit is made in a separate process, including start-up, on one
thread. The bound is 15 s on an idle machine. The exit code is 1 if an exhibit takes longer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rhosight.experiments import EXPERIMENTS, JobFolder
from rhosight.experiments.published import SETTINGS, import_jobs

BOUND = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(EXPERIMENTS))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    given = parser.parse_args()
    repeats = json.loads((given.results / SETTINGS).read_text(encoding="utf-8"))["repeats"]
    longest = 0.0
    with tempfile.TemporaryDirectory() as out:
        print(f"{import_jobs(given.results, JobFolder(out))} jobs, {repeats} repeats", flush=True)
        for name in given.names:
            command = [sys.executable, "-m", "rhosight", "reproduce", name, "--preset", "offline"]
            started = time.perf_counter()
            subprocess.run(
                [*command, "--repeats", str(repeats), "--out", out],
                check=True,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            seconds = time.perf_counter() - started
            longest = max(longest, seconds)
            print(f"{name}: {seconds:.1f} s", flush=True)
    return int(longest > BOUND)


if __name__ == "__main__":
    sys.exit(main())
