"""Measure time and memory of `rhosight predict best` against the stated bounds.

    python benchmarks/predict_speed.py [--many 1000]

Each command runs in a separate process, so the times include start-up. The files are CHGCARs of the
bundled training set; a thousand files are links to fifty of them. Bounds, on two cores: `import
rhosight` 0.5 s, one file 8 s, each further file 0.3 s, and at most 10 % more memory for ``--many``
files than for a hundred. The exit code is 1 if a bound is exceeded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import rhosight

DISTINCT = 50
BOUNDS = {"import": 0.5, "one file": 8.0, "each further file": 0.3, "memory": 1.1}


@dataclass(frozen=True)
class Run:
    """Wall-clock seconds, CPU seconds and peak memory in bytes of a process."""

    seconds: float
    cpu: float
    memory: int

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s ({self.cpu:.2f} of CPU), peak {self.memory / 2**20:.0f} MiB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", type=int, default=1000)
    many = parser.parse_args().many
    with tempfile.TemporaryDirectory() as name:
        # use another process: the peak of a child includes the memory of its parent at the start
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            files = pool.submit(write_files, Path(name), many).result()
        command = ["-m", "rhosight", "predict", "best", "--format", "csv", "--out", f"{name}/out"]
        start = fastest("import", ["-c", "import rhosight"])
        one = fastest("one file", [*command, files[0]])
        few = measure("100 files", [*command, *files[:100]])
        lot = measure(f"{many} files", [*command, *files])
    found = {
        "import": start.seconds,
        "one file": one.seconds,
        "each further file": (few.seconds - one.seconds) / 99,
        "memory": lot.memory / few.memory,
    }
    for what, bound in BOUNDS.items():
        unit = f"of the memory for 100 files, for {many} files" if what == "memory" else "s"
        print(f"{what}: {found[what]:.3f} {unit}; bound {bound:g}")
    return int(any(found[what] > bound for what, bound in BOUNDS.items()))


def write_files(folder: Path, count: int) -> list[str]:
    """Write CHGCARs of the training set; after the first fifty, link to them."""
    dataset = rhosight.load_dataset("mp-fcc")
    train = dataset[rhosight.split(dataset)[0][:DISTINCT]]
    for density in train.densities:
        density.to_chgcar(folder / f"{density.name}.CHGCAR")
    ids, files = train.ids, []
    for number in range(count):
        path = folder / f"{ids[number % len(ids)]}.CHGCAR"
        if number >= len(ids):
            link = folder / f"{number}.CHGCAR"
            link.symlink_to(path)
            path = link
        files.append(str(path))
    return files


def measure(what: str, arguments: list[str]) -> Run:
    """Run Python with these arguments and measure the process."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(arguments)[:80]} … ended with status {status}")
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    run = Run(seconds, usage.ru_utime + usage.ru_stime, memory)
    print(f"{what}: {run}", flush=True)
    return run


def fastest(what: str, arguments: list[str]) -> Run:
    """Return the fastest of three runs; slower ones waited for disk or programs."""
    return min((measure(what, arguments) for _ in range(3)), key=lambda run: run.seconds)


if __name__ == "__main__":
    raise SystemExit(main())
