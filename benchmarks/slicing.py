"""Compare time and memory of a slice with and without a supercell.

rhosight samples the cell directly; the paper's method builds a supercell first. Both make the same
image of one lattice plane from one density. Each method runs in a separate process on one core.
Memory is the peak resident size while the image is made, minus the resident size after the imports
and the loading of the density. On Linux it is VmHWM, reset at the start, minus VmRSS, because
ru_maxrss is inherited from the parent process. On other systems it is the growth of ru_maxrss,
which the memory of the imports can hide. The JSON also contains the peak of tracemalloc. The second
method needs Py-Rho: pip install 'rhosight[pyrho]'.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

# measured once, for an 8 × 8 × 8 supercell of a 60³ density with Py-Rho
ONCE = {"cells": 8, "seconds": 156.0, "megabytes": 23600.0}
BOUNDS = {"seconds": 0.1, "megabytes": 100.0}  # for rhosight's spline
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> int:
    arguments = parse()
    if arguments.route:
        return run_route(arguments)
    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = Path(folder)
        prepare(arguments)
        rows = [measure(arguments, route) for route in ("spline", "fourier")]
        rows += [measure(arguments, "supercell", cells) for cells in arguments.supercells]
    report = {
        "material": arguments.material,
        "grid": arguments.grid,
        "size": arguments.size,
        "window": f"{arguments.window} lattice scales, wrapped periodically",
        "memory": "peak resident size above that after imports and loading, MB of 10^6 bytes",
        "time": f"wall clock, one core, best of {arguments.repeats} (supercells: once)",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "scipy", "mp-pyrho")},
        "routes": rows,
        "extrapolated": extrapolate(rows),
        "measured_once": ONCE,
        "bounds": bounds(rows[0]),
    }
    print(table(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(bound["held"] for bound in report["bounds"].values()) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--material", default="mp-149", help="material of the bundled dataset (mp-149: Si)"
    )
    parser.add_argument("--grid", type=int, default=60, help="points along each side of the cell")
    parser.add_argument("--size", type=int, default=299, help="pixels along each side of the image")
    parser.add_argument(
        "--window", type=float, default=2.0, help="side of the window, in lattice scales"
    )
    parser.add_argument(
        "--supercells",
        type=int,
        nargs="*",
        default=[2, 4],
        help="sizes n of the n × n × n supercells",
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of repeats of rhosight's route"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    for name in ("--route", "--folder"):  # internal: the script calls itself with these
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--cells", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(arguments: argparse.Namespace) -> None:
    """Write a bundled density, Fourier-interpolated to the requested grid, to files."""
    from scipy.signal import resample

    from rhosight import load_dataset

    density = load_dataset("mp-fcc")[arguments.material].density
    grid = np.asarray(density.grid("total"), dtype=float)
    for axis in range(3):
        grid = resample(grid, arguments.grid, axis=axis)
    np.save(arguments.folder / "grid.npy", grid)
    density.structure.to(filename=str(arguments.folder / "structure.json"))


def measure(arguments: argparse.Namespace, route: str, cells: int = 1) -> dict:
    """Run one route in a separate process and compare its image with the spline's."""
    label = f"supercell {cells}×{cells}×{cells}" if route == "supercell" else route
    print(f"{label} ...", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--route", route, "--cells", str(cells)]
    for name in ("folder", "size", "window", "repeats"):
        command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(
        command,
        env={**os.environ, **dict.fromkeys(THREADS, "1")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    row = {"route": label, "cells": cells, **json.loads(done.stdout)}
    reference = np.load(arguments.folder / "spline.npy")
    if route != "spline":
        row["difference"] = {}
        for image in sorted(arguments.folder.glob(f"{route}*.npy")):
            difference = np.abs(np.load(image) - reference) / np.ptp(reference)
            row["difference"][image.stem] = {
                "max": float(difference.max()),
                "mean": float(difference.mean()),
            }
    return row


def run_route(arguments: argparse.Namespace) -> int:
    """Measure one route in its process, save images and print numbers as JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    folder = Path(arguments.folder)
    route = supercell if arguments.route == "supercell" else direct
    print(json.dumps(route(arguments, folder)))
    return 0


def direct(arguments: argparse.Namespace, folder: Path) -> dict:
    """Find the plane and sample the grid of the cell on it, as rhosight does."""
    grid, structure, lattice_plane, sample_window = load(folder)

    def draw() -> np.ndarray:
        side = arguments.window * plane.lattice_scale
        return sample_window(grid, plane, side, arguments.size, interpolation=arguments.route)

    before = start_peak()
    plane, plane_seconds = timed(lambda: lattice_plane(structure), arguments.repeats)
    image, seconds = timed(draw, arguments.repeats)
    megabytes = peak() - before
    tracemalloc.start()
    draw()
    _, allocated = tracemalloc.get_traced_memory()
    np.save(folder / f"{arguments.route}.npy", image)
    return {
        "seconds": seconds,
        "plane_seconds": plane_seconds,
        "megabytes": megabytes,
        "tracemalloc_megabytes": allocated / 1e6,
    }


def supercell(arguments: argparse.Namespace, folder: Path) -> dict:
    """Build a supercell and cut a plane through its array, as in the paper.

    The supercell is Py-Rho's n × n × n transform at its lowest cost, without up-sampling. Time and
    memory include linear interpolation of the plane. Cubic splines follow for the comparison of
    images; only their time is measured.
    """
    from pyrho.pgrid import PGrid
    from scipy.ndimage import map_coordinates

    grid, structure, lattice_plane, _ = load(folder)
    plane = lattice_plane(structure)
    cells, size = arguments.cells, arguments.size
    axis = ((np.arange(size) + 0.5) / size - 0.5) * arguments.window * plane.lattice_scale
    points = plane.points(axis[None, :], -axis[:, None])
    before = start_peak()
    shape = [cells * n for n in grid.shape]
    big, transform_seconds = timed(
        lambda: (
            PGrid(grid, structure.lattice.matrix)
            .get_transformed(cells * np.eye(3, dtype=int), shape)
            .grid_data
        )
    )
    places = np.moveaxis(points / cells * shape, -1, 0)
    linear, slice_seconds = timed(lambda: map_coordinates(big, places, order=1, mode="grid-wrap"))
    megabytes = peak() - before
    cubic, cubic_seconds = timed(lambda: map_coordinates(big, places, order=3, mode="grid-wrap"))
    np.save(folder / "supercell-linear.npy", linear)
    np.save(folder / "supercell-cubic.npy", cubic)
    return {
        "seconds": transform_seconds + slice_seconds,
        "transform_seconds": transform_seconds,
        "slice_seconds": slice_seconds,
        "cubic_slice_seconds": cubic_seconds,
        "megabytes": megabytes,
    }


def load(folder: Path) -> tuple:
    """Load the density, structure and rhosight's functions, which form the baseline."""
    from pymatgen.core import Structure

    from rhosight.density.plane import lattice_plane
    from rhosight.density.sampling import sample_window

    grid = np.load(folder / "grid.npy")
    return grid, Structure.from_file(folder / "structure.json"), lattice_plane, sample_window


def timed(work: Callable, repeats: int = 1) -> tuple:
    """Return the result and the shortest time in seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def start_peak() -> float:
    """Reset the peak and return the current resident size, MB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return proc_status("VmRSS")
    except OSError:
        return peak()


def peak() -> float:
    """Return the peak resident size of this process, MB."""
    try:
        return proc_status("VmHWM")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def proc_status(field: str) -> float:
    """Return a field of /proc/self/status in MB; Linux gives kB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024 / 1e6


def extrapolate(rows: list[dict]) -> dict | None:
    """Scale the largest supercell by n³ to the paper's 8 × 8 × 8."""
    built = [row for row in rows if row["route"].startswith("supercell")]
    if not built:
        return None
    largest = max(built, key=lambda row: row["cells"])
    factor = (ONCE["cells"] / largest["cells"]) ** 3
    return {
        "cells": ONCE["cells"],
        "seconds": factor * largest["seconds"],
        "megabytes": factor * largest["megabytes"],
    }


def bounds(row: dict) -> dict:
    return {
        name: {"bound": bound, "measured": row[name], "held": row[name] < bound}
        for name, bound in BOUNDS.items()
    }


def table(report: dict) -> str:
    spline = report["routes"][0]
    lines = [
        f"{report['size']}×{report['size']} pixels of {report['material']} on "
        f"{report['grid']}³ points; window {report['window']}",
        "",
        f"{'route':<28}{'time':>10}{'memory':>11}{'× time':>9}{'× memory':>10}",
    ]

    def line(label: str, row: dict) -> str:
        times = row["seconds"] / spline["seconds"]
        memory = row["megabytes"] / max(spline["megabytes"], 0.1)
        return (
            f"{label:<28}{row['seconds']:>8.3f} s{row['megabytes']:>8.0f} MB"
            f"{times:>9.1f}{memory:>10.1f}"
        )

    lines += [line(row["route"], row) for row in report["routes"]]
    if report["extrapolated"]:
        lines.append(line("8×8×8, extrapolated by n³", report["extrapolated"]))
    lines += [line("8×8×8, measured once", ONCE), ""]
    lines.append(f"finding the plane: {spline['plane_seconds']:.3f} s, once per structure")
    lines.append("difference from the spline's image, relative to its range:")
    for row in report["routes"][1:]:
        for name, difference in row["difference"].items():
            kind = f" ({name.removeprefix('supercell-')})" if "-" in name else ""
            lines.append(
                f"  {row['route'] + kind:<28}max {difference['max']:.1e}"
                f"  mean {difference['mean']:.1e}"
            )
    for name, unit in (("seconds", "s"), ("megabytes", "MB")):
        bound = report["bounds"][name]
        verdict = "holds" if bound["held"] else "does NOT hold"
        measured = f"{bound['measured']:.3g} {unit} < {bound['bound']:g} {unit}"
        lines.append(f"bound for the spline: {measured} {verdict}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
