"""ChargeDensity: a pymatgen Structure and its real-space grids, in e/Å³, on the edge of VASP's
files.

Grids follow VASP: ``grid[i, j, k]`` stands at fractional (i/nx, j/ny, k/nz), periodic, without a
duplicated end point. Values are per Å³, never multiplied by the cell volume (a CHGCAR is; it is
converted here, at the door).
"""

from __future__ import annotations

import lzma
import os
import re
import tempfile
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from monty.io import zopen
from pymatgen.core import Structure

from .errors import RhosightError

Kind = Literal["total", "difference", "spin", "promolecule"]

STORED_KINDS: tuple[str, ...] = ("total", "difference", "spin")
"""What a dataset stores; ``promolecule`` is derived as ``total`` − ``difference``."""

KINDS: tuple[str, ...] = (*STORED_KINDS, "promolecule")

# A real-space grid samples the three directions about equally densely: plane-wave codes choose it
# from one cut-off. A ratio beyond this means that grid and cell do not belong together.
MAX_SPACING_RATIO = 3.0

# Fortran drops the E of an exponent of three digits: 0.12345678901-101
_BARE_EXPONENT = re.compile(rb"(?<=\d)([+-]\d{3})(?=\s|$)")


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

    @classmethod
    def from_chgcar(
        cls, path: str | os.PathLike, kind: Literal["total", "difference"] = "total"
    ) -> ChargeDensity:
        """Read a VASP CHGCAR (or a file in its format, plain or compressed), through pymatgen.

        The file's values are divided by the cell volume. The first block becomes ``kind``: say
        ``"difference"`` for a file made by a charge-density-difference tool. The second block of a
        spin-polarised calculation, which VASP and pymatgen call ``diff``, becomes ``spin``: it is
        the magnetisation density, never ``difference``. Of a non-collinear file's four blocks only
        the first is read.

        Raises
        ------
        RhosightError
            If the file is missing, truncated, not numeric, holds NaN, or declares a grid that its
            data or its cell contradict. The message names the file and the cure.
        """
        from pymatgen.io.vasp.outputs import VolumetricData

        path = Path(path)
        if kind not in ("total", "difference"):
            raise RhosightError(
                f"{path}: the first block can be `total` or `difference`, not `{kind}`"
            )
        content = _check_chgcar(path)
        repaired = _repair(content)
        try:
            with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
                warnings.simplefilter("ignore")
                warnings.filterwarnings("error", message="Elements in POSCAR cannot be determined")
                source = path
                if repaired != content:
                    source = Path(folder) / "CHGCAR"
                    source.write_bytes(repaired)
                poscar, blocks, _ = VolumetricData.parse_file(str(source))
        except UserWarning as error:
            raise RhosightError(
                f"{path}: the elements are not named; write their symbols on a line of their own "
                "above the numbers of atoms (line 6)"
            ) from error
        except (ValueError, IndexError, KeyError, AssertionError, OverflowError) as error:
            raise RhosightError(
                f"{path}: not a readable CHGCAR ({_first_line(error)}); write it again, or convert "
                "it to CHGCAR format"
            ) from error
        structure = poscar.structure
        volume = structure.volume
        if not volume > 0:
            raise RhosightError(f"{path}: the cell has no volume; correct its vectors (lines 3-5)")
        grids = {kind: blocks["total"] / volume}
        if "diff" in blocks and "diff_x" not in blocks:
            grids["spin"] = blocks["diff"] / volume
        return cls(structure, grids, name=str(path), provenance={"source": path.name})

    def merged(self, other: ChargeDensity) -> ChargeDensity:
        """This density with the kinds of another file of the same crystal on the same grid.

        Raises
        ------
        RhosightError
            If the two differ in cell, atoms or grid, or both hold the same kind.
        """
        shared = set(self.grids) & set(other.grids)
        if shared:
            raise RhosightError(f"{other.name}: {self.name} already holds {', '.join(shared)}")
        if self.shape != other.shape:
            raise RhosightError(
                f"{other.name}: grid {other.shape} is not that of {self.name}, {self.shape}"
            )
        mine, its = self.structure, other.structure
        same = mine.species == its.species and np.allclose(
            mine.lattice.matrix, its.lattice.matrix, atol=1e-3
        )
        if not same:
            raise RhosightError(
                f"{other.name}: not the crystal of {self.name}: cell or atoms differ"
            )
        grids = {**self.grids, **other.grids}
        return ChargeDensity(mine, grids, name=self.name, provenance=self.provenance)

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


def _check_chgcar(path: Path) -> bytes:
    """The file's content, after catching what pymatgen would crash on, or would read without a
    word: a block whose length is not what its header declares, or a last number that is cut."""
    if not path.exists():
        raise RhosightError(f"{path}: no such file")
    if path.is_dir():
        raise RhosightError(f"{path}: is a folder; give the CHGCAR file in it")
    try:
        with zopen(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise RhosightError(f"{path}: cannot be read ({_first_line(error)})") from error
    lines = content.splitlines()
    start = next((i for i, line in enumerate(lines) if i > 5 and not line.strip()), None)
    if start is None or start + 1 >= len(lines):
        raise RhosightError(
            f"{path}: no density after the structure; is it a CHGCAR, and written to the end?"
        )
    header = lines[start + 1].split()
    try:
        dims = tuple(int(token) for token in header)
    except ValueError:
        dims = ()
    if len(dims) != 3 or min(dims) < 1:
        shown = lines[start + 1].decode(errors="replace").strip()[:60]
        raise RhosightError(
            f"{path}: line {start + 2} should declare the grid as three integers, found {shown!r}"
        )
    declared = dims[0] * dims[1] * dims[2]
    found = 0
    for number, line in enumerate(lines[start + 2 :], start=start + 3):
        tokens = line.split()
        if not tokens:
            continue
        first = tokens[0]
        if first.startswith(b"augmentation") or (tokens == header and b"." not in line):
            break
        if line.translate(None, b"0123456789+-.Ee \t"):
            wrong = next((token for token in tokens if not _is_number(token)), None)
            if wrong is not None:
                shown = wrong.decode(errors="replace")[:40]
                raise RhosightError(
                    f"{path}: line {number}: {shown!r} is not a number; write the file again"
                )
        found += len(tokens)
    grid = "×".join(map(str, dims))
    if found < declared:
        raise RhosightError(
            f"{path}: truncated: the grid {grid} needs {declared} values, the block holds {found}; "
            "copy or write the file again"
        )
    # between two blocks VASP may write one number per atom
    atoms = sum(int(token) for token in _counts(lines))
    if found > declared + atoms:
        raise RhosightError(
            f"{path}: the grid {grid} declares {declared} values, the block holds {found}; the "
            "header contradicts the data"
        )
    # a file that stops without a line end may have lost the end of its last number
    whole, last = (_exponent_digits(lines[i].split()[-1:]) for i in (start + 2, -1))
    if last < whole and not content.endswith((b"\n", b"\r")):
        raise RhosightError(
            f"{path}: truncated within its last number; copy or write the file again"
        )
    return content


def _repair(content: bytes) -> bytes:
    """What VASP writes but pymatgen misreads, written as it should be: an exponent of three
    digits, and a comment line that is not UTF-8."""
    comment, end, rest = content.partition(b"\n")
    comment = comment.decode("utf-8", errors="replace").encode()
    return comment + end + _BARE_EXPONENT.sub(rb"E\1", rest)


def _is_number(token: bytes) -> bool:
    try:
        float(_BARE_EXPONENT.sub(rb"E\1", token))
    except ValueError:
        return False
    return True


def _exponent_digits(tokens: list[bytes]) -> int:
    return len(tokens[0].upper().partition(b"E")[2]) if tokens else 0


def _counts(lines: list[bytes]) -> list[bytes]:
    """The line of atom counts of a POSCAR header (line 6, or line 7 when symbols stand above)."""
    for line in lines[5:7]:
        tokens = line.split()
        if tokens and all(token.isdigit() for token in tokens):
            return tokens
    return []


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:160] if text else type(error).__name__
