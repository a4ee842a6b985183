"""Mark densities that a model predicted, in memory and in files, and write them.

A predicted density is no self-consistent one. Its provenance and the comment of its file say so,
and :func:`rhosight.read_density` notes it when it reads such a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RhosightError
from ..storage import check_writable, replacing
from .charge_density import ChargeDensity, Kind, add_notes

MARK = "predicted density"
"""Words with which the comment of a file of a predicted density begins."""

# The error estimate in such a comment; earlier files have semicolons between its parts
_ERROR = re.compile(
    r"expected error ([\d.e+-]+) % of the electrons, 90 % of crystals below ([\d.e+-]+)"
)

SUFFIXES = (".cube", ".h5", ".hdf5", ".vasp", "CHGCAR")


def mark_predicted(
    density: ChargeDensity, model: str, error: float, bound: float, outside: Sequence[str]
) -> ChargeDensity:
    """Return a density whose provenance says that a model predicted it.

    Parameters
    ----------
    density
        With ``total`` and ``difference``.
    model
        Name and version of the model.
    error, bound
        Expected share of the electrons that are misplaced, and its bound for 9 of 10 crystals.
    outside
        Reasons why the crystal is outside the training domain.
    """
    comment = (
        f"{MARK}, not SCF: {model}, expected error {format_percent(error)} % of the electrons, "
        f"90 % of crystals below {format_percent(bound)} %"
    )
    if outside:
        comment += ", outside the training domain"
    provenance = {
        "code": f"{model} (predicted)",
        "predicted": comment,
        "error": {"expected": error, "bound": bound, "level": 0.9},
        "outside": list(outside),
        "kinds": {
            "total": "predicted pseudo-density: smooth valence plus smooth core, like GPAW's; its "
            "integral is not the number of electrons",
            "difference": "total minus rhosight's table of free atoms",
        },
        "integrals": {kind: density.integral(kind) for kind in ("total", "difference")},
    }
    notes = [
        comment,
        *(f"outside what the density model has learned: {reason}" for reason in outside),
    ]
    marked = replace(density, provenance={**density.provenance, **provenance})
    return add_notes(marked, notes)


def format_percent(share: float) -> str:
    """Return a share in per cent with two digits, never with an exponent."""
    return f"{float(f'{100 * share:.2g}'):g}"


def note_predicted(density: ChargeDensity, comment: str) -> ChargeDensity:
    """Return a density, with a note if its file's comment says it was predicted."""
    start = comment.find(MARK)
    if start < 0:
        return density
    text = comment[start:].split("\n")[0].strip()
    provenance: dict[str, Any] = {**density.provenance, "predicted": text}
    if found := _ERROR.search(text):
        error, bound = (float(value) / 100 for value in found.groups())
        provenance["error"] = {"expected": error, "bound": bound, "level": 0.9}
    return add_notes(replace(density, provenance=provenance), [text])


def is_predicted(density: ChargeDensity) -> bool:
    """Tell whether a model predicted a density."""
    return "predicted" in density.provenance


def get_error(provenance: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return expected error and bound of a predicted density, if they are known.

    Both are shares of the electrons; None for a density that no model predicted.
    """
    error = provenance.get("error", {}) if "predicted" in provenance else {}
    return error.get("expected"), error.get("bound")


def check_output(path: str | os.PathLike) -> Path:
    """Return the path of a file to write; its name must tell the format.

    Raises
    ------
    RhosightError
        If it does not, or the folder is missing or not writable.
    """
    path = Path(path)
    if not path.name.lower().endswith(tuple(suffix.lower() for suffix in SUFFIXES)):
        raise RhosightError(
            f"{path}: the name does not tell a format; give one that ends in {', '.join(SUFFIXES)}"
        )
    check_writable(path)
    return path


def write_density(density: ChargeDensity, path: str | os.PathLike, kind: Kind = "total") -> None:
    """Write one kind to a CHGCAR, a Gaussian cube or pymatgen's HDF5, atomically.

    Parameters
    ----------
    density
        The density. The comment of the file is that of a predicted density, or the formula.
    path
        Its name ends in ``CHGCAR``, ``.vasp``, ``.cube``, ``.h5`` or ``.hdf5``.
    kind
        Kind to write.
    """
    path = check_output(path)
    name = path.name.lower()
    with replacing(path) as draft:
        if name.endswith(".cube"):
            _write_cube(density, draft, kind)
        elif name.endswith((".h5", ".hdf5")):
            _write_hdf5(density, draft, kind)
        else:
            density.to_chgcar(draft, kind)


def write_error_map(density: ChargeDensity, errors: np.ndarray, path: str | os.PathLike) -> None:
    """Write where a predicted density is unsure, in a format of ``write_density``.

    The comment says that the file holds no density; :func:`rhosight.read_density` refuses it.

    Parameters
    ----------
    density
        A predicted density.
    errors
        Expected error at each point, e/Å³, shape (nx, ny, nz).
    path
        The file.
    """
    comment = f"error map (expected |error|), not a density, of a {density.comment}"
    provenance = {**density.provenance, "predicted": comment}
    write_density(replace(density, grids={"total": errors}, provenance=provenance), path)


def _write_cube(density: ChargeDensity, path: Path, kind: Kind) -> None:
    """Write a cube file: lengths in Bohr, values in e/Bohr³ with nine digits."""
    from .electrons import BOHR

    structure = density.structure
    steps = structure.lattice.matrix / np.array(density.shape)[:, None] / BOHR
    lines = [density.comment, f"{kind} in e/Bohr^3"]
    lines.append(f"{len(structure):5d} {0:12.6f} {0:12.6f} {0:12.6f}")
    for count, step in zip(density.shape, steps, strict=True):
        lines.append(f"{count:5d} " + " ".join(f"{value:16.10f}" for value in step))
    for site in structure:
        place = " ".join(f"{value / BOHR:16.10f}" for value in site.coords)
        lines.append(f"{site.specie.Z:5d} {0:12.6f} {place}")
    rows = density.grid(kind).reshape(-1, density.shape[2]) * BOHR**3
    with path.open("w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
        for row in rows:
            texts = [f"{value:16.9e}" for value in row]
            for start in range(0, len(texts), 6):
                file.write(" ".join(texts[start : start + 6]) + "\n")


def _write_hdf5(density: ChargeDensity, path: Path, kind: Kind) -> None:
    """Write the HDF5 of pymatgen's ``VolumetricData``, values times the volume."""
    from pymatgen.io.vasp.outputs import Chgcar

    values = np.asarray(density.grid(kind), dtype=float) * density.structure.volume
    file = Chgcar(density.structure.copy(), {"total": values})
    file.name = density.comment
    file.to_hdf5(str(path))
