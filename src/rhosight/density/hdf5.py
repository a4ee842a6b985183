"""HDF5 files of pymatgen's ``VolumetricData.to_hdf5``, which is what ``Chgcar`` inherits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pymatgen.core import Structure

from ..errors import RhosightError, first_line
from .charge_density import ChargeDensity, check_crystal
from .electrons import Unit, per_cubic_angstrom
from .stream import MAX_BYTES

if TYPE_CHECKING:
    import h5py


def read_hdf5(
    path: str | os.PathLike,
    kind: Literal["total", "difference"] = "total",
    unit: Unit = "e",
    max_bytes: int = MAX_BYTES,
) -> ChargeDensity:
    """Read ``total`` as ``kind``, and ``diff`` as ``spin``, as :func:`read_chgcar` does.

    Parameters
    ----------
    path
        The file.
    kind
        What its ``total`` is.
    unit
        Of the values; pymatgen keeps those of the file that it read, a CHGCAR as a rule.
    max_bytes
        Size of a grid at most, in memory.

    Raises
    ------
    RhosightError
        If the file is no such file, its grids are not three-dimensional or too large, or its cell
        has no volume. The message names the file and the cure.
    """
    import h5py

    path = Path(path)
    if kind not in ("total", "difference"):
        raise RhosightError(f"{path}: `total` can be `total` or `difference`, not `{kind}`")
    try:
        with h5py.File(path, "r") as file:
            structure = Structure.from_dict(json.loads(file.attrs["structure_json"]))
            data = file["vdata"]
            grids = {kind: _grid(data["total"], str(path), max_bytes)}
            if "diff" in data and "diff_x" not in data:
                grids["spin"] = _grid(data["diff"], str(path), max_bytes)
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


def _grid(data: h5py.Dataset, where: str, max_bytes: int) -> np.ndarray:
    if len(data.shape) != 3 or data.size * 8 > max_bytes:
        raise RhosightError(
            f"{where}: a grid of shape {data.shape}; a density has three dimensions, and "
            f"{max_bytes / 2**30:.3g} GiB at most (max_bytes)"
        )
    return np.asarray(data, dtype=float)
