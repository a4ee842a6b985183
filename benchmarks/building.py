"""Measure the speed, time per step and memory of dataset builds.

    python benchmarks/building.py images          60³ CHGCARs → rows with three 224×224 channels
    python benchmarks/building.py scale           1,000, then 10,000 synthetic 30³ materials

``images`` reads, samples and writes with one worker. In the same run it applies the paper's method
(Py-Rho to a 4×4×4 supercell, then a slice) to the same files. ``scale`` strains the cell and
modulates the grid of bundled crystals, writes them as CHGCARs, builds a dataset with all cores, and
records the memory of every process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Poscar
from scipy.ndimage import map_coordinates
from scipy.signal import resample

from rhosight import load_dataset
from rhosight.dataset import BuildReport, build
from rhosight.dataset.sources.directory import Directory
from rhosight.density import ChargeDensity
from rhosight.density.plane import lattice_plane
from rhosight.density.vasp import read_chgcar
from rhosight.inputs.image import ImageSettings

BOUND = 8.0  # materials per second and core, `images`


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("images", "scale"))
    parser.add_argument(
        "--count", type=int, help="number of materials (default 64; 10,000 for scale)"
    )
    parser.add_argument("--folder", type=Path, help="working folder (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.what == "images":
            return images(Path(folder), arguments.count or 64)
        return scale(Path(folder), arguments.count or 10_000)


def images(folder: Path, count: int) -> int:
    write_synthetic(folder / "runs", count, 60)
    settings = ImageSettings(size=224, interpolation="spline")
    watch = Memory()
    with watch:
        started = time.perf_counter()
        report = build(Directory(folder / "runs"), folder / "x.parquet", (), settings, workers=1)
        elapsed = time.perf_counter() - started
    busy = sum(report.seconds.values())
    print(f"{count} materials of 60³, three channels of 224×224, one worker")
    print(f"  {report.materials / busy:.1f} materials per second and core (bound: {BOUND:g})")
    print(f"  {elapsed:.1f} s including worker start and merging, peak {watch.peak:.2f} GB")
    table(report)
    ours = busy / report.materials
    paper = papers_route(next((folder / "runs").rglob("CHGCAR")))
    print(
        f"  the paper's method at 4×4×4: {paper:.1f} s per material, "
        f"{paper / ours:.0f} times as long"
    )
    return int(report.materials / busy < BOUND or len(report.problems) > 0)


def scale(folder: Path, count: int) -> int:
    cores = os.cpu_count() or 1
    print(f"synthetic materials of 30³, {cores} workers")
    for number in (max(1, count // 10), count):
        runs = folder / f"runs-{number}"
        write_synthetic(runs, number, 30)
        watch = Memory()
        with watch:
            started = time.perf_counter()
            report = build(Directory(runs), folder / f"set-{number}", ("formula",))
            elapsed = time.perf_counter() - started
        print(
            f"  {number:6d}: {elapsed:7.1f} s, {number / elapsed / cores:5.1f} per second and "
            f"core, peak of all processes {watch.peak:.2f} GB, "
            f"of the largest {watch.largest:.2f} GB"
        )
        table(report)
    return 0


def table(report: BuildReport) -> None:
    whole = sum(report.seconds.values())
    for step, seconds in report.seconds.items():
        share = f"{1000 * seconds / report.materials:7.1f} ms, {seconds / whole:4.0%}"
        print(f"    {step:6s} {share}")


def papers_route(path: Path, size: int = 224) -> float:
    """Return the seconds of Py-Rho for a 4×4×4 transform and one plane through it."""
    from pyrho.pgrid import PGrid

    started = time.perf_counter()
    density = read_chgcar(path)
    grid = density.grid("total")
    shape = [4 * points for points in grid.shape]
    cell = PGrid(grid, density.structure.lattice.matrix)
    big = cell.get_transformed(4 * np.eye(3, dtype=int), shape).grid_data
    plane = lattice_plane(density.structure)
    axis = ((np.arange(size) + 0.5) / size - 0.5) * 8.0
    places = np.moveaxis(plane.points(axis[None, :], -axis[:, None]) / 4 * shape, -1, 0)
    map_coordinates(big, places, order=1, mode="grid-wrap")
    return time.perf_counter() - started


def write_synthetic(folder: Path, count: int, points: int) -> None:
    """Write CHGCARs of real crystals with random strain and grid modulation."""
    draw = np.random.default_rng(0)
    dataset = load_dataset("mp-fcc")
    sources = [refined(density, points) for density in dataset.densities[::20]]
    for number in range(count):
        density = sources[number % len(sources)]
        strain = np.eye(3) + np.diag(draw.uniform(-0.02, 0.02, 3))
        structure = Structure(
            Lattice(density.structure.lattice.matrix @ strain),
            density.structure.species,
            density.structure.frac_coords,
        )
        phase = 2 * np.pi * (np.arange(points) / points + draw.random())
        grid = density.grid("total") * (1 + 0.05 * np.cos(phase))[:, None, None]
        place = folder / f"{number // 1000:03d}" / f"m{number:06d}"
        place.mkdir(parents=True)
        values = (grid * structure.volume).ravel(order="F")
        with (place / "CHGCAR").open("w") as file:
            file.write(Poscar(structure).get_str(significant_figures=10))
            file.write(f"\n {points} {points} {points}\n")
            whole = len(values) // 5 * 5
            np.savetxt(file, values[:whole].reshape(-1, 5), fmt="%.11E")
            if whole < len(values):
                np.savetxt(file, values[whole:][None], fmt="%.11E")


def refined(density: ChargeDensity, points: int) -> ChargeDensity:
    """Return a density on ``points`` along each side, by Fourier interpolation."""
    grid = np.asarray(density.grid("total"), dtype=float)
    for axis in range(3):
        grid = resample(grid, points, axis=axis)
    return ChargeDensity(density.structure, {"total": grid}, density.name)


class Memory:
    """Record the peak memory of this process and its children, in GB, every 0.1 s."""

    def __enter__(self) -> Memory:
        self.peak = self.largest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.1):
            sizes = []
            for process in (me, *me.children(recursive=True)):
                try:
                    sizes.append(process.memory_info().rss / 1e9)
                except psutil.Error:  # the process ended in the meantime
                    continue
            self.peak = max(self.peak, sum(sizes))
            self.largest = max(self.largest, *sizes)


if __name__ == "__main__":
    raise SystemExit(main())
