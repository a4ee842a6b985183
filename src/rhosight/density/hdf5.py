"""HDF5 files of pymatgen's ``VolumetricData.to_hdf5``, which ``Chgcar`` inherits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core import Structure

from ..errors import RhosightError, first_line
from .charge_density import ChargeDensity, StoredKind
from .crystals import check_crystal
from .electrons import Unit, per_cubic_angstrom
from .stream import MAX_BYTES

if TYPE_CHECKING:
    import h5py


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
            structure = Structure.from_dict(json.loads(file.attrs["structure_json"]))
            data = file["vdata"]
            grids: dict[str, np.ndarray]
            grids = {kind: _read_grid(data["total"], str(path), max_bytes)}
            if "diff" in data and "diff_x" not in data:
                grids["spin"] = _read_grid(data["diff"], str(path), max_bytes)
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
    provenance = {"source": path.name, "format": "HDF5", "unit": unit}
    return ChargeDensity(structure, grids, name=str(path), provenance=provenance)


def _read_grid(data: h5py.Dataset, where: str, max_bytes: int) -> np.ndarray:
    if len(data.shape) != 3 or data.size * 8 > max_bytes:
        raise RhosightError(
            f"{where}: a grid of shape {data.shape}; a density has three dimensions and at most "
            f"{max_bytes / 2**30:.3g} GiB (max_bytes)"
        )
    return np.asarray(data, dtype=float)
