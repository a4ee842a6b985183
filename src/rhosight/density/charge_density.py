"""ChargeDensity: a pymatgen Structure and its real-space grids, in e/Å³.

Grids follow VASP: ``grid[i, j, k]`` is the value at fractional (i/nx, j/ny, k/nz), periodic,
without a duplicated end point. Values are per Å³, never multiplied by the cell volume: the readers
of this package convert the values of a file when they read it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pymatgen.core import Structure

from ..errors import RhosightError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["total", "difference", "spin", "promolecule"]
StoredKind = Literal["total", "difference", "spin"]

STORED_KINDS: tuple[StoredKind, ...] = ("total", "difference", "spin")
"""Kinds that a dataset stores; ``promolecule`` is derived as ``total`` − ``difference``."""

KINDS: tuple[Kind, ...] = (*STORED_KINDS, "promolecule")

# Plane-wave codes choose the grid from one cut-off, so it samples the three directions about
# equally densely. Beyond this ratio, grid and cell do not belong together.
MAX_SPACING_RATIO = 3.0

# e/Å³; at the nucleus of a hydrogen-like uranium atom there are 3e6, and relativity adds to it
MAX_VALUE = 1e8

# Å; files round to less than this, and relaxations that matter exceed it
MAX_SHIFT = 1e-3


@dataclass(frozen=True, eq=False)
class ChargeDensity:
    """A crystal and its charge densities.

    Parameters
    ----------
    structure
        The cell of the grids (primitive, conventional or a supercell).
    grids
        Kind → array of shape (nx, ny, nz), e/Å³. Kinds are ``total``, ``difference``, ``spin``
        (see the vocabulary in the documentation); all share one shape.
    name
        Name of the material in messages and tables: a file name or a material id.
    provenance
        The origin of the density, e.g. ``{"code": "GPAW 22.8.0"}``.

    Raises
    ------
    RhosightError
        For an unknown kind, grids that differ in shape, values that are not finite or larger than
        at any nucleus, or a grid that contradicts the cell.
    """

    structure: Structure
    grids: Mapping[str, np.ndarray]
    name: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = self.name or self.structure.composition.reduced_formula
        if not self.grids:
            raise RhosightError(f"{where}: no density grid; give at least one of {STORED_KINDS}")
        unknown = set(self.grids) - set(STORED_KINDS)
        if unknown:
            raise RhosightError(
                f"{where}: unknown kind of density {sorted(unknown)}; use {', '.join(STORED_KINDS)}"
            )
        shapes = {kind: np.shape(grid) for kind, grid in self.grids.items()}
        if len(set(shapes.values())) > 1:
            raise RhosightError(f"{where}: the grids differ in shape: {shapes}")
        check_grid_fits_cell(next(iter(shapes.values())), self.structure, where)
        for kind, grid in self.grids.items():
            bad = int(np.size(grid) - np.count_nonzero(np.isfinite(grid)))
            if bad:
                raise RhosightError(
                    f"{where}: {bad} of {np.size(grid)} values of `{kind}` are NaN or infinite; "
                    "write the file again from a converged calculation"
                )
            largest = float(np.abs(grid).max())
            if largest > MAX_VALUE:
                raise RhosightError(
                    f"{where}: a value of `{kind}` is {largest:.3g} e/Å³, more than at any "
                    "nucleus; the file is damaged, so copy or write it again"
                )

    def __repr__(self) -> str:
        from .notebook import render_text

        return render_text(self)

    def _repr_html_(self) -> str:
        from .notebook import render_html

        return render_html(self)

    def plot(
        self,
        kind: Kind | None = None,
        hkl: tuple[int, int, int] | None = None,
        offset: float = 0.0,
        window: float = 8.0,
    ) -> Figure:
        """Draw a slice along a lattice plane: axes in Å, atoms, colour bar.

        Parameters
        ----------
        kind
            Kind of density; by default the first of :attr:`kinds`.
        hkl
            Miller indices in the conventional setting; by default the densest plane.
        offset
            Shift of the plane along its normal, in interplanar spacings.
        window
            Side of the square, Å.

        Returns
        -------
        matplotlib Figure; ``figure.savefig("slice.pdf")`` writes it.

        Raises
        ------
        RhosightError
            If the kind is missing, or there is no such plane.
        """
        from .drawing import draw_slices

        chosen: Any = kind or self.kinds[0]
        return draw_slices(self, window, hkl, offset, (chosen,))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of grid points along the three lattice vectors."""
        nx, ny, nz = np.shape(next(iter(self.grids.values())))
        return nx, ny, nz

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that :meth:`grid` returns, stored or derived."""
        have = tuple(kind for kind in STORED_KINDS if kind in self.grids)
        return (*have, "promolecule") if {"total", "difference"} <= set(have) else have

    @property
    def comment(self) -> str:
        """First line of files: the formula, or that a model predicted the density."""
        return str(self.provenance.get("predicted") or self.structure.composition.formula)

    def grid(self, kind: Kind) -> np.ndarray:
        """Return the grid of one kind, shape (nx, ny, nz), e/Å³.

        ``promolecule`` is ``total`` − ``difference``, the superposition of free atoms.

        Raises
        ------
        RhosightError
            If the kind is missing; ``spin`` is, without a spin-polarised calculation.
        """
        if kind in self.grids:
            return np.asarray(self.grids[kind])
        if kind == "promolecule" and {"total", "difference"} <= set(self.grids):
            return np.asarray(self.grids["total"]) - np.asarray(self.grids["difference"])
        where = self.name or self.structure.composition.reduced_formula
        remedy = (
            "; `promolecule` needs both `total` and `difference`"
            if kind == "promolecule"
            else "; if the file contains that kind, name it with kind=... or --kind"
        )
        raise RhosightError(f"{where}: has {', '.join(self.kinds)} but not `{kind}`{remedy}")

    def integral(self, kind: Kind) -> float:
        """Return the integral over the cell, electrons."""
        return float(self.grid(kind).mean(dtype=float) * self.structure.volume)

    def merge(self, other: ChargeDensity) -> ChargeDensity:
        """Return this density with the kinds of another one, of the same crystal and grid.

        Raises
        ------
        RhosightError
            If the two differ in cell, atoms or grid, share a kind, or if only one of them is an
            all-electron density (from VASP's AECCAR files).
        """
        shared = set(self.grids) & set(other.grids)
        if shared:
            raise RhosightError(
                f"{other.name}: {self.name} already has {', '.join(shared)}; give another kind"
            )
        if self.shape != other.shape:
            raise RhosightError(
                f"{other.name}: its grid {other.shape} differs from that of {self.name}, "
                f"{self.shape}; give two files of one calculation"
            )
        check_same_crystal(self, other)
        if _is_all_electron(self) != _is_all_electron(other):
            raise RhosightError(
                f"{other.name}: cannot be merged with {self.name}: only one is all-electron, and "
                "the two differ near the nuclei; take both from AECCAR files or neither"
            )
        provenance = {**self.provenance, **collect_notes(self, other)}
        grids = {**self.grids, **other.grids}
        return ChargeDensity(self.structure, grids, name=self.name, provenance=provenance)

    def to_chgcar(self, path: str | os.PathLike, kind: Kind = "total") -> None:
        """Write one kind to a CHGCAR, and ``spin`` as the second block if present.

        A ``difference`` file looks like any CHGCAR: read it with ``kind="difference"``.
        """
        from pymatgen.io.vasp.outputs import Chgcar

        volume = self.structure.volume
        blocks = {"total": np.asarray(self.grid(kind), dtype=float) * volume}
        if kind == "total" and "spin" in self.grids:
            blocks["diff"] = np.asarray(self.grid("spin"), dtype=float) * volume
        file = Chgcar(self.structure.copy(), blocks)
        file.name = self.comment
        file.write_file(str(path))

    def regrid(self, shape: tuple[int, int, int] = (60, 60, 60)) -> ChargeDensity:
        """Return the same cell on another grid, by Py-Rho.

        Paper section 2.1 uses 60 × 60 × 60. rhosight does not need it, because planes are sampled
        from the native grid. Py-Rho (doi:10.48550/arXiv.2107.03540) refines the grid by Fourier
        interpolation and interpolates linearly on the refined one.

        Raises
        ------
        RhosightError
            If Py-Rho is not installed: ``pip install 'rhosight[pyrho]'``.
        """
        try:
            from pyrho.pgrid import PGrid
        except ImportError as error:
            raise RhosightError("regridding needs Py-Rho: pip install 'rhosight[pyrho]'") from error
        lattice = self.structure.lattice.matrix
        grids = {
            kind: PGrid(np.asarray(grid, dtype=float), lattice)
            .get_transformed(np.eye(3, dtype=int), list(shape), up_sample=2)
            .grid_data
            for kind, grid in self.grids.items()
        }
        return ChargeDensity(self.structure, grids, name=self.name, provenance=self.provenance)


def check_grid_fits_cell(shape: tuple[int, ...], structure: Structure, where: str) -> None:
    """Raise if a grid of this shape does not sample this cell evenly."""
    if len(shape) != 3 or min(shape) < 1:
        raise RhosightError(f"{where}: a density grid has three dimensions, not shape {shape}")
    spacing = np.array(structure.lattice.abc) / np.array(shape)
    if spacing.max() > MAX_SPACING_RATIO * spacing.min():
        grid = "×".join(map(str, shape))
        edges = "×".join(f"{a:.2f}" for a in structure.lattice.abc)
        raise RhosightError(
            f"{where}: grid {grid} contradicts the cell of {edges} Å (spacings of "
            f"{', '.join(f'{s:.3f}' for s in spacing)} Å); check that structure and density "
            "belong together and that the grid's axes are in the cell's order"
        )


def add_notes(density: ChargeDensity, notes: Sequence[str]) -> ChargeDensity:
    """Return the density with further notes in its provenance."""
    if not notes:
        return density
    notes = [*density.provenance.get("notes", []), *notes]
    return replace(density, provenance={**density.provenance, "notes": notes})


def collect_notes(*densities: ChargeDensity) -> dict[str, list[str]]:
    """Return the notes of all densities for a provenance, each once."""
    notes = [note for density in densities for note in density.provenance.get("notes", [])]
    return {"notes": list(dict.fromkeys(notes))} if notes else {}


def check_same_crystal(one: ChargeDensity, other: ChargeDensity) -> None:
    """Raise if two densities differ in cell, elements or positions of the atoms."""
    ours, its = one.structure, other.structure
    same = ours.species == its.species and np.allclose(
        ours.lattice.matrix, its.lattice.matrix, rtol=0, atol=MAX_SHIFT
    )
    if same:
        shift = its.frac_coords - ours.frac_coords
        shift = (shift - np.round(shift)) @ ours.lattice.matrix
        same = bool(np.abs(shift).max() < MAX_SHIFT)
    if not same:
        raise RhosightError(
            f"{other.name}: not the crystal of {one.name}: cell or atoms differ; give two "
            "files of one calculation"
        )


def _is_all_electron(density: ChargeDensity) -> bool:
    return str(density.provenance.get("density", "")).startswith("all-electron")
