"""Calculate drawn crystals in their order, a few at a time, with `rhosight data build gpaw`.

    python run.py drawn out [--step 20]

`drawn` is what draw.py wrote. A build of rhosight goes through its CIF files by name, and its
dataset is there when all are done. Here each step gives the build so many more crystals, those that
come next, and brings `out/densities.parquet` up to date, which can be used from the first step on.

A crystal that fails would be tried again at every step: its CIF file goes to `out/failed/` instead,
and why to `out/failed.csv`. Move the file back to `out/cifs/` to have it tried again.

The same command goes on after whatever has ended it; at most the calculation in flight is lost. A
file `out/stop` ends it after the step in progress.
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
    """Go through the steps that are left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("drawn", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--step", type=int, default=20, help="crystals in a step")
    arguments = parser.parse_args()
    drawn, out = arguments.drawn, arguments.out
    for name in ("cifs", "failed"):
        (out / name).mkdir(parents=True, exist_ok=True)
    (out / "pid").write_text(f"{os.getpid()}\n")
    head, *rows = read_rows(drawn / "targets.csv")
    order = [row[0] for row in rows]
    while not (out / "stop").exists():
        # a step that was interrupted comes first
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
            print(f"the build ended with code {code}: {out / 'build.log'}", flush=True)
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
    print("stopped, as out/stop asks", flush=True)
    return 0


def build(out: Path) -> int:
    """Run the product's own command on the crystals that are due; its exit code."""
    command = [sys.executable, "-m", "rhosight", "data", "build", "gpaw"]
    command += [str(out / "cifs"), str(out / "densities.parquet")]
    command += ["--targets", str(out / "targets.csv"), "--workers", "1"]
    with open(out / "build.log", "a", encoding="utf-8") as log:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode


def have(out: Path) -> list[str]:
    """Ids in the dataset as it is."""
    import pyarrow.parquet as pq

    file = out / "densities.parquet"
    if not file.exists():
        return []
    return pq.read_table(file, columns=["material_id"])["material_id"].to_pylist()


def unfinished(out: Path, due: list[str]) -> bool:
    """Tell whether a crystal is due that the dataset lacks."""
    return bool(set(due) - set(have(out)))


def set_aside(out: Path, failed: list[str]) -> int:
    """Move the CIF files of crystals that could not be calculated, and note why; how many."""
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
    """Read a CSV file; nothing where there is none."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def write_rows(path: Path, rows: list[list[str]]) -> None:
    """Write a CSV file, at once."""
    draft = path.with_name(f".{path.name}")
    with open(draft, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
