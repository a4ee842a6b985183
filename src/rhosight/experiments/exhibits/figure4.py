"""Make Figure 4: total and difference density of titanium (mp-72) along z.

The crystal is hexagonal. The package includes its density, computed with GPAW; :func:`calculate`
computes it again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from pymatgen.core import Lattice, Structure

from ...dataset.dataset import Dataset
from ...density.charge_density import ChargeDensity
from ...density.plane import lattice_plane
from ...evaluation.html import page_style
from ...inputs.image import Channel, density_slice
from ...storage import bundled_file
from ..exhibit import Exhibit

TITLE = "Slices along z of total and difference density, mp-72 (Ti, hexagonal)"
MATERIAL = "mp-72"
A, C = 4.58, 2.83
"""Lattice constants of ω-Ti, Å, close to those of PBE; the Materials Project's own were not
available. P6/mmm fixes the atoms, at 1a and 2d."""

HEIGHTS = (0.0, 0.25, 0.5)  # of the slices, in units of c
_WINDOW, _SIZE = 9.0, 220  # Å and pixels along a side
_MAPS = {"total": "viridis", "difference": "RdBu_r"}


def make_structure() -> Structure:
    """Return ω-Ti: P6/mmm, atoms at 1a (0, 0, 0) and 2d (1/3, 2/3, 1/2)."""
    return Structure.from_spacegroup(
        "P6/mmm", Lattice.hexagonal(A, C), ["Ti", "Ti"], [[0, 0, 0], [1 / 3, 2 / 3, 1 / 2]]
    )


def load_bundled() -> Dataset:
    """Load the density that comes with the package."""
    with bundled_file(f"paper/{MATERIAL}.parquet") as path:
        return Dataset.from_parquet(path)


def calculate() -> Dataset:
    """Compute the density with GPAW, in a minute on one core.

    Raises
    ------
    RhosightError
        If GPAW is not installed, or the calculation fails.
    """
    from ...dataset.sources.gpaw import Gpaw

    with tempfile.TemporaryDirectory(prefix="rhosight-") as folder:
        path = Path(folder) / f"{MATERIAL}.cif"
        make_structure().to(filename=str(path))
        source = Gpaw(path)
        density = source.read(MATERIAL).density
        about = source.about() | {"name": MATERIAL, "licence": "CC BY 4.0"}
    return Dataset.from_densities([density], about=about)


def make_exhibit(dataset: Dataset | None = None, gpaw: bool = False) -> Exhibit:
    """Draw the slices, with the range of each as the table.

    Parameters
    ----------
    dataset
        Source of the crystal if it contains mp-72; otherwise the bundled one is used.
    gpaw
        Compute the density again.
    """
    density, origin = _choose_density(dataset, gpaw)
    slices = _cut_slices(density)
    rows = [
        {"density": kind, "z_over_c": z, "unit": "e/Å³", "minimum": v.min(), "mean": v.mean()}
        | {"maximum": v.max()}
        for (kind, z), v in slices.items()
    ]
    a, _, c = density.structure.lattice.abc
    note = f"ω-Ti, P6/mmm, a = {a:.2f} Å, c = {c:.2f} Å; {origin}. The paper shows VASP's density "
    note += "of the Materials Project and does not give the heights."
    return Exhibit("figure4", TITLE, pd.DataFrame(rows), _draw(slices), note)


def draw(dataset: Dataset | None = None, gpaw: bool = False) -> Figure:
    """Draw the slices (paper Figure 4): rows of densities, columns of heights."""
    return _draw(_cut_slices(_choose_density(dataset, gpaw)[0]))


def _choose_density(dataset: Dataset | None, gpaw: bool) -> tuple[ChargeDensity, str]:
    """Return the density and its origin."""
    if gpaw:
        return calculate()[MATERIAL].density, "GPAW's PAW pseudo-density, computed now"
    if dataset is not None and MATERIAL in dataset:
        density = dataset[MATERIAL].density
        if set(_MAPS) <= set(density.kinds):
            return density, "from the dataset"
    return load_bundled()[MATERIAL].density, "GPAW's PAW pseudo-density, bundled"


def _cut_slices(density: ChargeDensity) -> dict[tuple[str, float], np.ndarray]:
    plane = lattice_plane(density.structure, (0, 0, 1))
    return {
        (kind, z): density_slice(
            density,
            # heights are from the atom at 1a, but the plane may start at an atom at height ½
            Channel(kind=kind, window=_WINDOW, hkl=(0, 0, 1), offset=z - float(plane.origin[2])),
            _SIZE,
            plane=plane,
        )
        for kind in _MAPS
        for z in HEIGHTS
    }


def _draw(slices: dict[tuple[str, float], np.ndarray]) -> Figure:
    half = _WINDOW / 2
    with page_style("figure4"):
        figure = Figure(figsize=(8.6, 5.4), layout="constrained")
        panels = figure.subplots(len(_MAPS), len(HEIGHTS), sharex=True, sharey=True)
        for row, kind in zip(panels, _MAPS, strict=True):
            values = np.array([slices[kind, z] for z in HEIGHTS])
            norm = (
                Normalize(values.min(), values.max())
                if kind == "total"
                else CenteredNorm(0, np.abs(values).max())
            )
            for axes, z in zip(row, HEIGHTS, strict=True):
                extent = (-half, half, -half, half)
                shown = axes.imshow(slices[kind, z], cmap=_MAPS[kind], norm=norm, extent=extent)
                axes.set_title(f"{kind}, z = {z:g} c", loc="left")
            figure.colorbar(shown, ax=row.tolist(), label="e/Å³", shrink=0.9)
            row[0].set_ylabel("y (Å)")
        for axes in panels[-1]:
            axes.set_xlabel("x (Å)")
    return figure
