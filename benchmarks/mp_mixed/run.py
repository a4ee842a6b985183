"""Calculate drawn crystals in order, in steps, with `rhosight data build gpaw`.

    python run.py drawn out [--step 20]

`drawn` is the output folder of draw.py. A rhosight build processes its CIF files by name and writes
its dataset after all of them are done. This script gives the build the next crystals in each step
and then updates `out/densities.parquet`, which is usable after the first step.

A failed crystal would be tried again in every step. Its CIF file therefore moves to `out/failed/`,
and `out/failed.csv` lists the reason. To try it again, move the file back to `out/cifs/`.

The same command resumes after any interruption; at most the calculation in progress is lost. A file
`out/stop` ends the run after the current step.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path


def main() -> int:
    """Run the remaining steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("drawn", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--step", type=int, default=20, help="number of crystals per step")
    arguments = parser.parse_args()
    drawn, out = arguments.drawn, arguments.out
    for name in ("cifs", "failed"):
        (out / name).mkdir(parents=True, exist_ok=True)
    (out / "pid").write_text(f"{os.getpid()}\n")
    head, *rows = read_rows(drawn / "targets.csv")
    order = [row[0] for row in rows]
    while not (out / "stop").exists():
        # finish an interrupted step first
        due = [i for i in order if (out / "cifs" / f"{i}.cif").exists()]
        left = [i for i in order if i not in due and not (out / "failed" / f"{i}.cif").exists()]
        if not unfinished(out, due):
            if not left:
                print("all done", flush=True)
                return 0
            for material_id in left[: arguments.step]:
                shutil.copy(drawn / "cifs" / f"{material_id}.cif", out / "cifs")
            due += left[: arguments.step]
            left = left[arguments.step :]
        write_rows(out / "targets.csv", [head, *(row for row in rows if row[0] in due)])
        started = time.monotonic()
        before = set(have(out))
        code = build(out)
        if code:
            print(f"the build ended with exit code {code}. See {out / 'build.log'}", flush=True)
            return code
        now = set(have(out))
        failed = set_aside(out, [i for i in due if i not in now])
        seconds = time.monotonic() - started
        each = seconds / max(len(now - before) + failed, 1)
        ends = datetime.now() + timedelta(seconds=each * len(left))
        print(
            f"{datetime.now():%d %b %H:%M}  {len(now)} of {len(order)} done, {failed} failed now, "
            f"{each:.0f} s each; {len(left)} left, until {ends:%d %b %H:%M}",
            flush=True,
        )
    print("stopped because the file out/stop exists", flush=True)
    return 0


def build(out: Path) -> int:
    """Run rhosight's build command on the due crystals and return its exit code."""
    command = [sys.executable, "-m", "rhosight", "data", "build", "gpaw"]
    command += [str(out / "cifs"), str(out / "densities.parquet")]
    command += ["--targets", str(out / "targets.csv"), "--workers", "1"]
    with open(out / "build.log", "a", encoding="utf-8") as log:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode


def have(out: Path) -> list[str]:
    """Return the ids in the current dataset."""
    import pyarrow.parquet as pq

    file = out / "densities.parquet"
    if not file.exists():
        return []
    return pq.read_table(file, columns=["material_id"])["material_id"].to_pylist()


def unfinished(out: Path, due: list[str]) -> bool:
    """Return True if a due crystal is missing from the dataset."""
    return bool(set(due) - set(have(out)))


def set_aside(out: Path, failed: list[str]) -> int:
    """Move CIF files of failed crystals, note the reasons and return the number."""
    if not failed:
        return 0
    why = {row[0]: row[2] for row in read_rows(out / "densities.parquet.problems.csv")}
    rows = read_rows(out / "failed.csv") or [["material_id", "problem"]]
    for material_id in failed:
        (out / "cifs" / f"{material_id}.cif").rename(out / "failed" / f"{material_id}.cif")
        rows.append([material_id, why.get(material_id, "")])
    write_rows(out / "failed.csv", rows)
    return len(failed)


def read_rows(path: Path) -> list[list[str]]:
    """Read a CSV file; return no rows if the file does not exist."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def write_rows(path: Path, rows: list[list[str]]) -> None:
    """Write a CSV file atomically."""
    draft = path.with_name(f".{path.name}")
    with open(draft, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
