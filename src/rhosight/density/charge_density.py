"""ChargeDensity: a pymatgen Structure and its real-space grids, in e/Å³.

Grids follow VASP: ``grid[i, j, k]`` stands at fractional (i/nx, j/ny, k/nz), periodic, without a
duplicated end point. Values are per Å³, never multiplied by the cell volume: the readers of this
package convert what a file holds at the door.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pymatgen.core import DummySpecies, Element, Structure

from ..errors import RhosightError

Kind = Literal["total", "difference", "spin", "promolecule"]
StoredKind = Literal["total", "difference", "spin"]

STORED_KINDS: tuple[str, ...] = ("total", "difference", "spin")
"""What a dataset stores; ``promolecule`` is derived as ``total`` − ``difference``."""

KINDS: tuple[str, ...] = (*STORED_KINDS, "promolecule")

# A real-space grid samples the three directions about equally densely: plane-wave codes choose it
# from one cut-off. A ratio beyond this means that grid and cell do not belong together.
MAX_SPACING_RATIO = 3.0

# Volume over the product of the edges, below which a cell is flat: angles of a few thousandths
MIN_VOLUME_RATIO = 1e-6

# Å: more than the digits that files keep, less than any relaxation that matters
MAX_SHIFT = 1e-3


@dataclass(frozen=True, eq=False)
class ChargeDensity:
    """A crystal and its charge densities.

    Parameters
    ----------
    structure
        The cell in which the grids are given (primitive, conventional or a supercell).
    grids
        Kind → array of shape (nx, ny, nz), e/Å³. Kinds are ``total``, ``difference``, ``spin``
        (see the vocabulary in the documentation); all share one shape.
    name
        What messages and tables call this material: a file name or a material id.
    provenance
        What is known of where the density came from, e.g. ``{"code": "GPAW 22.8.0"}``.

    Raises
    ------
    RhosightError
        For an unknown kind, grids that differ in shape, values that are not finite, or a grid that
        contradicts the cell.
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
                f"{where}: unknown kind of density {sorted(unknown)}; known are {STORED_KINDS}"
            )
        shapes = {kind: np.shape(grid) for kind, grid in self.grids.items()}
        if len(set(shapes.values())) > 1:
            raise RhosightError(f"{where}: the grids differ in shape: {shapes}")
        check_grid_fits_cell(self.shape, self.structure, where)
        for kind, grid in self.grids.items():
            bad = int(np.size(grid) - np.count_nonzero(np.isfinite(grid)))
            if bad:
                raise RhosightError(
                    f"{where}: {bad} of {np.size(grid)} values of `{kind}` are NaN or infinite; "
                    "write the file again from a converged calculation"
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of grid points along the three lattice vectors."""
        return tuple(np.shape(next(iter(self.grids.values()))))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that :meth:`grid` can give, stored or derived."""
        have = tuple(kind for kind in STORED_KINDS if kind in self.grids)
        return (*have, "promolecule") if {"total", "difference"} <= set(have) else have

    def grid(self, kind: Kind) -> np.ndarray:
        """The grid of one kind, shape (nx, ny, nz), e/Å³.

        ``promolecule`` is ``total`` − ``difference``, the superposition of free atoms. A density
        from a calculation without spin polarisation has no ``spin`` and raises as for any kind
        that is missing.
        """
        if kind in self.grids:
            return np.asarray(self.grids[kind])
        if kind == "promolecule" and {"total", "difference"} <= set(self.grids):
            return np.asarray(self.grids["total"]) - np.asarray(self.grids["difference"])
        where = self.name or self.structure.composition.reduced_formula
        cure = (
            "; `promolecule` needs both `total` and `difference`"
            if kind == "promolecule"
            else "; if the file holds that kind, say so (--kind)"
        )
        raise RhosightError(f"{where}: has {', '.join(self.kinds)} but not `{kind}`{cure}")

    def integral(self, kind: Kind) -> float:
        """Integral over the cell, electrons."""
        return float(self.grid(kind).mean(dtype=float) * self.structure.volume)

    def merged(self, other: ChargeDensity) -> ChargeDensity:
        """This density with the kinds of another file of the same crystal on the same grid.

        Raises
        ------
        RhosightError
            If the two differ in cell, atoms or grid, both hold the same kind, or one is an
            all-electron density (from VASP's AECCAR files) and the other not.
        """
        shared = set(self.grids) & set(other.grids)
        if shared:
            raise RhosightError(f"{other.name}: {self.name} already holds {', '.join(shared)}")
        if self.shape != other.shape:
            raise RhosightError(
                f"{other.name}: grid {other.shape} is not that of {self.name}, {self.shape}"
            )
        check_same_crystal(self, other)
        if _is_all_electron(self) != _is_all_electron(other):
            raise RhosightError(
                f"{other.name}: of it and {self.name} only one is all-electron: near the nuclei "
                "they are two descriptions; take both from AECCAR files or none"
            )
        provenance = {**self.provenance, **notes_of(self, other)}
        grids = {**self.grids, **other.grids}
        return ChargeDensity(self.structure, grids, name=self.name, provenance=provenance)

    def to_chgcar(self, path: str | os.PathLike, kind: Kind = "total") -> None:
        """Write one kind as the first block of a CHGCAR, with ``spin`` as the second if present.

        A ``difference`` file looks like any CHGCAR: remember to read it with
        ``kind="difference"``.
        """
        from pymatgen.io.vasp.outputs import Chgcar

        volume = self.structure.volume
        blocks = {"total": np.asarray(self.grid(kind), dtype=float) * volume}
        if kind == "total" and "spin" in self.grids:
            blocks["diff"] = np.asarray(self.grid("spin"), dtype=float) * volume
        Chgcar(self.structure.copy(), blocks).write_file(str(path))

    def regrid(self, shape: tuple[int, int, int] = (60, 60, 60)) -> ChargeDensity:
        """The same cell on another grid, through Py-Rho (paper section 2.1 uses 60 × 60 × 60).

        rhosight itself does not need it, since planes are sampled from the native grid. Py-Rho
        (doi:10.48550/arXiv.2107.03540) interpolates linearly on a grid that it first refines by
        Fourier interpolation. Needs ``pip install 'rhosight[pyrho]'``.
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
    """Raise if a grid of this shape cannot sample this cell evenly."""
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


def notes_of(*densities: ChargeDensity) -> dict[str, list[str]]:
    """For a provenance: what was noted on any of these, once; empty if nothing was."""
    notes = [note for density in densities for note in density.provenance.get("notes", [])]
    return {"notes": list(dict.fromkeys(notes))} if notes else {}


def check_same_crystal(one: ChargeDensity, other: ChargeDensity) -> None:
    """RhosightError if two files are not about the same atoms at the same places of one cell."""
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


def check_cell(matrix: np.ndarray, where: str) -> None:
    """Raise if three lattice vectors, the rows, span no volume."""
    with np.errstate(all="ignore"):
        box = np.linalg.norm(matrix, axis=1).prod()
        volume = abs(np.linalg.det(matrix))
    if not (np.isfinite(box) and volume > MIN_VOLUME_RATIO * box):
        raise RhosightError(f"{where}: the cell has no volume; correct its lattice vectors")


def check_crystal(structure: Structure, where: str) -> None:
    """Raise if a structure that another library read has no volume, no atoms, atoms at no place, or
    atoms of no element.
    """
    check_cell(structure.lattice.matrix, where)
    if not len(structure):
        raise RhosightError(f"{where}: holds no atoms; write the structure with the density")
    if not np.isfinite(structure.frac_coords).all():
        raise RhosightError(f"{where}: positions of atoms are NaN or infinite; write it again")
    species = structure.composition.keys()
    if not structure.is_ordered or any(isinstance(one, DummySpecies) for one in species):
        raise RhosightError(
            f"{where}: {structure.composition.formula} are not all elements, one a site; name them"
        )


def make_structure(
    matrix: np.ndarray, species: Sequence[Element], positions: np.ndarray, where: str
) -> Structure:
    """A crystal of lattice vectors (rows) and positions in Å, atoms moved into the cell.

    Raises
    ------
    RhosightError
        If it has no volume or no atoms.
    """
    check_cell(matrix, where)
    if not len(species):
        raise RhosightError(f"{where}: holds no atoms; write the structure with the density")
    return Structure(matrix, species, positions, coords_are_cartesian=True, to_unit_cell=True)
