"""Compare the time of rhosight and pymatgen to read one CHGCAR.

Both libraries read the same files of one real density, refined to the requested grid. They take
turns in one process on one core. Times are processor times, because other programs on the machine
affect them less than wall-clock times. Before the timing, both must return the same grid. The two
readers do different work. pymatgen (``Chgcar.from_file``) has a compiled parser that accepts the
numbers as they are. rhosight checks every number and the end of every block against the header, and
reads at most the expected amount of data.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
from pymatgen.io.vasp.outputs import Chgcar

from rhosight import ChargeDensity, load_dataset
from rhosight.density.vasp import read_chgcar

BOUND = 50.0  # ms for one block of 60³ values, plain


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--material", default="mp-149", help="material of the bundled dataset (mp-149: Si)"
    )
    parser.add_argument("--grid", type=int, default=60, help="points along each side of the cell")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    density = refined(load_dataset("mp-fcc")[arguments.material].density, arguments.grid)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path in write(density, Path(folder)):
            rows.append(measure(path, arguments.repeats))
    print(table(rows, arguments))
    report = {
        "material": arguments.material,
        "grid": arguments.grid,
        "repeats": arguments.repeats,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "pyarrow", "pymatgen")},
        "files": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if rows[0]["rhosight_ms"] < BOUND else 1


def refined(density: ChargeDensity, n: int) -> ChargeDensity:
    """Return the density on n × n × n points, by Fourier interpolation or cutoff."""
    grid = density.grid("total").astype(float)
    for axis in range(3):
        wave = np.fft.rfft(grid, axis=axis)
        grid = np.fft.irfft(wave, n, axis=axis) * n / grid.shape[axis]
    return ChargeDensity(density.structure, {"total": grid}, name=density.name)


def write(density: ChargeDensity, folder: Path) -> list[Path]:
    """Write one block, plain and compressed, and two blocks, plain."""
    plain, packed, spin = (folder / name for name in ("CHGCAR", "CHGCAR.gz", "CHGCAR.spin"))
    density.to_chgcar(plain)
    packed.write_bytes(gzip.compress(plain.read_bytes(), 6))
    total = density.grid("total")
    both = {"total": total, "spin": total - total.mean()}
    ChargeDensity(density.structure, both).to_chgcar(spin)
    return [plain, packed, spin]


def measure(path: Path, repeats: int) -> dict[str, str | float]:
    """Return the median milliseconds of both readers, which take turns."""
    readers: dict[str, Callable[[], object]] = {
        "rhosight_ms": lambda: read_chgcar(path),
        "pymatgen_ms": lambda: Chgcar.from_file(str(path)),
    }
    ours, theirs = read_chgcar(path), Chgcar.from_file(str(path))
    expected = theirs.data["total"] / theirs.structure.volume
    assert np.allclose(ours.grid("total"), expected, rtol=1e-14, atol=0)
    times: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(repeats):
        for name, read in readers.items():
            started = time.process_time()
            read()
            times[name].append((time.process_time() - started) * 1e3)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["pymatgen_ms"] / medians["rhosight_ms"]
    return {"file": path.name, "megabytes": path.stat().st_size / 1e6, **medians, "ratio": ratio}


def table(rows: list[dict[str, str | float]], arguments: argparse.Namespace) -> str:
    lines = [
        f"{arguments.material} on {arguments.grid}³, median of {arguments.repeats}, processor time",
        f"{'file':<14}{'MB':>7}{'rhosight':>12}{'pymatgen':>12}{'ratio':>8}",
    ]
    lines += [
        f"{row['file']:<14}{row['megabytes']:>7.1f}{row['rhosight_ms']:>9.1f} ms"
        f"{row['pymatgen_ms']:>9.1f} ms{row['ratio']:>8.2f}"
        for row in rows
    ]
    held = "held" if rows[0]["rhosight_ms"] < BOUND else "missed"
    return "\n".join([*lines, f"bound: {BOUND:.0f} ms for one plain block: {held}"])


if __name__ == "__main__":
    pa.set_cpu_count(1)
    warnings.simplefilter("ignore")  # pymatgen warns about files that are not named CHGCAR
    raise SystemExit(main())
