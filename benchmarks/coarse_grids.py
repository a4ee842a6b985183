"""Measure how much the predictions of `best` depend on the grid of a density.

    python benchmarks/coarse_grids.py [--points 24 32 48 64 96] [--ids mp-149 ...]
                                      [--files ../shared/data/vasp]

Two kinds of densities are read:

- bundled densities with peaks added at the nuclei, evaluated at the points of coarse and fine grids
  as VASP's are (sampled, not filtered): :data:`PEAKS` high and wide, the second so narrow that a
  coarse grid holds only one of its points
- VASP's densities in ``--files``, if the folder is there: all points, and every second and third.
  All-electron silicon is AECCAR0 + AECCAR2, whose peaks are 13,000 e/Å³ high

Each line has the largest change of a prediction against the finest grid, in widths of its interval,
over the three targets; ``!`` marks a density that the reader notes as too coarse. The exit code is
1 if a change exceeds :data:`BOUND` without such a note.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pymatgen.core import Structure

from rhosight import ChargeDensity, load_dataset, load_model, read_density
from rhosight.density.plausibility import note_coarse_grid

IDS = {
    "mp-682": "NaF",
    "mp-867840": "BeFeRh2",
    "mp-149": "Si",
    "mp-8352": "SiO2",
    "mp-1001833": "InBi",
    "mp-24719": "NiH",
    "mp-1784": "CsF",
    "mp-2749": "TiBe2",
}
PEAKS = ((50.0, 0.6), (300.0, 0.3))
"""Height (e/Å³) and radius (Å), at which a peak ends; hydrogen, which has no core, gets none."""

BOUND = 0.2
"""Largest change of a prediction, in widths of its interval."""


def evaluate_waves(grid: np.ndarray, points: int) -> np.ndarray:
    """Return the values of a band-limited density at ``points`` along each axis."""
    stride = max(1, -(-max(grid.shape) // points))
    fine = (points * stride,) * 3
    spectrum = np.zeros(fine, dtype=complex)
    waves = [[*range((n + 1) // 2), *range(-((n - 1) // 2), 0)] for n in grid.shape]
    spectrum[np.ix_(*waves)] = np.fft.fftn(grid)[np.ix_(*waves)]
    values = np.fft.ifftn(spectrum).real * (np.prod(fine) / grid.size)
    return values[::stride, ::stride, ::stride]


def make_peaks(structure: Structure, points: int, height: float, radius: float) -> np.ndarray:
    """Return peaks ``height (1 − r²/radius²)³`` at the nuclei, on a grid."""
    grid = np.zeros((points,) * 3)
    reach = radius * np.array(structure.lattice.reciprocal_lattice_crystallographic.abc) * points
    cores = [site.frac_coords for site in structure if site.specie.symbol != "H"]
    for centre in np.array(cores) * points:
        spans = [
            np.arange(np.floor(c - r), np.ceil(c + r) + 1)
            for c, r in zip(centre, reach, strict=True)
        ]
        box = np.stack(np.meshgrid(*spans, indexing="ij"), -1)
        squares = (((box - centre) / points @ structure.lattice.matrix) ** 2).sum(-1)
        places = np.moveaxis(box.astype(int) % points, -1, 0)
        np.add.at(grid, tuple(places), height * np.clip(1 - squares / radius**2, 0, None) ** 3)
    return grid


def add_peaks(
    density: ChargeDensity, sizes: list[int]
) -> Iterator[tuple[str, list[ChargeDensity]]]:
    """Yield a title and the densities on grids of these sizes, for each of :data:`PEAKS`."""
    waves = np.asarray(density.grid("total"), dtype=float)
    smooth = {points: evaluate_waves(waves, points) for points in sizes}
    for height, radius in PEAKS:
        grids = [
            smooth[points] + make_peaks(density.structure, points, height, radius)
            for points in sizes
        ]
        title = f"{density.structure.composition.reduced_formula} + {height:g} e/Å³ in {radius} Å"
        yield title, [ChargeDensity(density.structure, {"total": grid}, title) for grid in grids]


def thin_files(folder: Path) -> Iterator[tuple[str, list[ChargeDensity]]]:
    """Yield a title and VASP's densities with every third, every second and all points."""
    files = {name: read_density(folder / f"{name}.CHGCAR.gz") for name in ("Al", "Si", "Ni")}
    core, valence = (read_density(folder / f"AECCAR{k}.gz") for k in (0, 2))
    both = np.asarray(core.grid("total")) + valence.grid("total")
    files["Si, all-electron"] = ChargeDensity(valence.structure, {"total": both})
    for name, density in files.items():
        grid = np.asarray(density.grid("total"))
        strides = [k for k in (3, 2, 1) if not any(n % k for n in grid.shape)]
        yield (
            f"VASP: {name}",
            [
                ChargeDensity(density.structure, {"total": grid[::k, ::k, ::k]}, name)
                for k in strides
            ],
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", nargs="+", type=int, default=[24, 32, 48, 64, 96])
    parser.add_argument("--ids", nargs="+", default=list(IDS))
    parser.add_argument("--files", type=Path, default=Path("../shared/data/vasp"))
    arguments = parser.parse_args()
    dataset, best = load_dataset("mp-fcc"), load_model("best")
    sizes = sorted(arguments.points)
    series = [s for i in arguments.ids for s in add_peaks(dataset[i].density, sizes)]
    if arguments.files.is_dir():
        series += thin_files(arguments.files)
    sound = True
    for title, densities in series:
        table = best.predict_intervals(densities)
        changes = np.zeros(len(densities))
        for target in best.targets:
            width = (table[f"{target}_high"] - table[f"{target}_low"]).iloc[-1]
            moved = np.abs(table[target] - table[target].iloc[-1]).to_numpy() / width
            changes = np.maximum(changes, moved)
        cells = []
        for density, change in zip(densities, changes, strict=True):
            noted = bool(note_coarse_grid(density))
            sound &= noted or bool(change < BOUND)
            step = max(density.structure.lattice.abc[k] / density.shape[k] for k in range(3))
            cells.append(f"{density.shape[0]} ({step:.2f} Å) {change:.3f}{'!' if noted else ' '}")
        print(f"{title:32} {'  '.join(cells)}", flush=True)
    print(f"all changes are below {BOUND} or noted" if sound else f"a change exceeds {BOUND}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
