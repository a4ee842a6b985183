"""Figure 4: total and difference density of hexagonal titanium (mp-72) in slices along z.

The density comes with the package, computed with GPAW; :func:`calculate` computes it again.
"""

from __future__ import annotations

import tempfile
from importlib import resources
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
from ..exhibit import Exhibit

TITLE = "Slices along z of total and difference density, mp-72 (Ti, hexagonal)"
MATERIAL = "mp-72"
A, C = 4.58, 2.83
"""Lattice constants of ω-Ti, Å, close to what PBE gives; the Materials Project's own were not at
hand. P6/mmm fixes the atoms, at 1a and 2d."""

HEIGHTS = (0.0, 0.25, 0.5)  # of the slices, in units of c
_WINDOW, _SIZE = 9.0, 220  # Å and pixels along a side
_MAPS = {"total": "viridis", "difference": "RdBu_r"}


def structure() -> Structure:
    """ω-Ti: P6/mmm, atoms at 1a (0, 0, 0) and 2d (1/3, 2/3, 1/2)."""
    return Structure.from_spacegroup(
        "P6/mmm", Lattice.hexagonal(A, C), ["Ti", "Ti"], [[0, 0, 0], [1 / 3, 2 / 3, 1 / 2]]
    )


def bundled() -> Dataset:
    """The density that comes with the package."""
    file = resources.files("rhosight") / "data" / "paper" / f"{MATERIAL}.parquet"
    with resources.as_file(file) as path:
        return Dataset.from_parquet(path)


def calculate() -> Dataset:
    """The density computed anew with GPAW, in a minute on one core.

    Raises
    ------
    RhosightError
        If there is no GPAW, or the calculation fails.
    """
    from ...dataset.sources.gpaw import Gpaw

    with tempfile.TemporaryDirectory(prefix="rhosight-") as folder:
        path = Path(folder) / f"{MATERIAL}.cif"
        structure().to(filename=str(path))
        source = Gpaw(path)
        density = source.read(MATERIAL).density
        about = source.about() | {"name": MATERIAL, "licence": "CC BY 4.0"}
    return Dataset.from_densities([density], about=about)


def exhibit(dataset: Dataset | None = None, gpaw: bool = False) -> Exhibit:
    """The slices, with the range of each as its table.

    Parameters
    ----------
    dataset
        Where the crystal is from if it holds mp-72; else it is the bundled one.
    gpaw
        Compute the density anew.
    """
    density, origin = _density(dataset, gpaw)
    slices = _slices(density)
    rows = [
        {"density": kind, "z_over_c": z, "unit": "e/Å³", "minimum": v.min(), "mean": v.mean()}
        | {"maximum": v.max()}
        for (kind, z), v in slices.items()
    ]
    a, _, c = density.structure.lattice.abc
    note = f"ω-Ti, P6/mmm, a = {a:.2f} Å, c = {c:.2f} Å; {origin}. The paper shows VASP's density "
    note += "of the Materials Project, and does not say at which heights."
    return Exhibit("figure4", TITLE, pd.DataFrame(rows), _draw(slices), note)


def draw(dataset: Dataset | None = None, gpaw: bool = False) -> Figure:
    """The slices (paper Figure 4), one row a kind of density, one column a height."""
    return _draw(_slices(_density(dataset, gpaw)[0]))


def _density(dataset: Dataset | None, gpaw: bool) -> tuple[ChargeDensity, str]:
    """The density, and where it is from."""
    if gpaw:
        return calculate()[MATERIAL].density, "GPAW's PAW pseudo-density, computed now"
    if dataset is not None and MATERIAL in dataset:
        found = dataset[MATERIAL].density
        if set(_MAPS) <= set(found.kinds):
            return found, "from the dataset"
    return bundled()[MATERIAL].density, "GPAW's PAW pseudo-density, bundled"


def _slices(density: ChargeDensity) -> dict[tuple[str, float], np.ndarray]:
    plane = lattice_plane(density.structure, (0, 0, 1))
    return {
        (kind, z): density_slice(
            density,
            # the plane may pass through an atom at height ½; heights count from the atom at 1a
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
