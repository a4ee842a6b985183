"""HDF5 files of pymatgen's ``VolumetricData.to_hdf5``, which ``Chgcar`` inherits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RhosightError, first_line
from .charge_density import ChargeDensity, StoredKind
from .crystals import check_crystal
from .electrons import Unit, per_cubic_angstrom
from .stream import MAX_BYTES
from .structure_json import parse_structure_json

if TYPE_CHECKING:
    import h5py

_LARGE, _MAX_RATIO = 2**26, 1100
"""Larger grids, in bytes, that are compressed more than deflate can do, were never written."""


def read_hdf5(
    path: str | os.PathLike,
    kind: StoredKind = "total",
    unit: Unit = "e",
    max_bytes: int = MAX_BYTES,
) -> ChargeDensity:
    """Read an HDF5 file: ``total`` becomes ``kind``, ``diff`` becomes ``spin``.

    This corresponds to :func:`read_chgcar`.

    Parameters
    ----------
    path
        The file.
    kind
        Kind of its ``total``: ``total`` or ``difference``.
    unit
        Unit of the values; pymatgen keeps that of the file it read, usually a CHGCAR.
    max_bytes
        Maximum size of a grid, in bytes of memory.

    Raises
    ------
    RhosightError
        If the file is not an HDF5 file of pymatgen, its grids are not three-dimensional or too
        large, or its cell has no volume. The message names the file and says how to fix it.
    """
    import h5py

    path = Path(path)
    if kind not in ("total", "difference"):
        raise RhosightError(f"{path}: `total` can be `total` or `difference`, not `{kind}`")
    try:
        with h5py.File(path, "r") as file:
            structure = parse_structure_json(file.attrs["structure_json"], str(path))
            grids, notes = _read_grids(file, kind, str(path), max_bytes)
            comment = str(file.attrs.get("name", ""))[:500]
    except (
        ArithmeticError,
        AttributeError,
        KeyError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise RhosightError(
            f"{path}: not an HDF5 file of pymatgen's VolumetricData ({first_line(error)}); write "
            "it with to_hdf5, or as a CHGCAR"
        ) from error
    check_crystal(structure, str(path))
    factor = per_cubic_angstrom(unit, structure.volume)
    grids = {name: grid * factor for name, grid in grids.items()}
    provenance: dict[str, Any] = {"source": path.name, "format": "HDF5", "unit": unit}
    provenance["comment"] = comment
    if notes:
        provenance["notes"] = notes
    return ChargeDensity(structure, grids, name=str(path), provenance=provenance)


def _read_grids(
    file: h5py.File, kind: StoredKind, where: str, max_bytes: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return ``total`` as ``kind``, ``diff`` as ``spin``, and notes."""
    names = list(file["vdata"])
    grids: dict[str, np.ndarray] = {kind: read_grid(file, "vdata/total", where, max_bytes)}
    if "diff_x" in names:
        return grids, ["non-collinear: the three grids of the magnetisation are left out"]
    if "diff" in names:
        grids["spin"] = read_grid(file, "vdata/diff", where, max_bytes)
    return grids, []


def read_grid(file: h5py.Group, name: str, where: str, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Read a grid that an HDF5 file holds itself, float64.

    Raises
    ------
    RhosightError
        If it is no three-dimensional array of floats, lies in another file, or is larger than
        ``max_bytes`` or than what the file can hold.
    KeyError
        If there is none of this name.
    """
    import h5py

    data: h5py.Dataset = file
    for part in name.split("/"):
        link = data.get(part, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise RhosightError(f"{where}: `{name}` is a link; write the grid into the file")
        data = data[part]
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "fiu":
        raise RhosightError(f"{where}: `{name}` is not an array of floats; write it again")
    if data.external or data.is_virtual:
        raise RhosightError(f"{where}: `{name}` lies in another file; write the grid into this one")
    if len(data.shape) != 3 or data.size * 8 > max_bytes:
        raise RhosightError(
            f"{where}: a grid of shape {data.shape}; a density has three dimensions and at most "
            f"{max_bytes / 2**30:.3g} GiB (max_bytes)"
        )
    if data.nbytes > max(_LARGE, _MAX_RATIO * data.id.get_storage_size()):
        grid = "×".join(map(str, data.shape))
        raise RhosightError(
            f"{where}: the grid {grid} of `{name}` was not written; write the file again"
        )
    return np.asarray(data, dtype=float)
