"""Read uploads as crystals, within the limits, and keep them for later jobs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from ..dataset.dataset import Dataset
from ..dataset.packing import load_dataset
from ..density.charge_density import ChargeDensity
from ..density.crystals import as_structure
from ..density.files import UnknownFormat, read_density, recognise
from ..density.free_atoms import difference_from_total
from ..density.structure_json import parse_structure_json
from ..density.structures import is_cif, read_cif, read_text
from ..errors import RhosightError
from .checks import CERTAIN
from .limits import MIB, Limits

DATASET = "mp-fcc"

Crystal = ChargeDensity | Structure

ACCEPTED = "a CHGCAR, cube or XSF file (plain, .gz, .bz2, .xz), or a CIF"
"""Formats that the page reads, for messages."""

LARGEST_PRIMITIVE = 250.0
"""Å³; the density of a larger primitive cell takes longer than some 20 s to predict."""

# What messages say about options of the command line
_OPTION = re.compile(r" \(--(unit|kind)[^)]*\)")

_DENSITY, _STRUCTURE, _MATERIAL = "density.parquet", "structure.json", "material.json"


def read_upload(path: Path, kind: str, limits: Limits, unit: str = "") -> Crystal:
    """Read a density file, or the structure of a CIF.

    Parameters
    ----------
    path
        The upload, under the visitor's name for it.
    kind
        Kind of density in a density file, one of :data:`rhosight.app.checks.UPLOADED`. ``total`` is
        what the page assumes, so that the file's own label counts; ``CERTAIN`` overrules it.
    limits
        Limits of text, grid and atoms.
    unit
        Unit of its values; empty for that of the format.

    Raises
    ------
    RhosightError
        If the format is unknown, the file is damaged, or a limit is exceeded.
    """
    if not path.stat().st_size:
        raise RhosightError(f"{path}: the file is empty; send it again")
    if is_cif(path):
        crystal: Crystal = _read_cif(path, limits)
    elif _recognise(path) == "HDF5":
        raise RhosightError(f"{path}: this page does not read HDF5; send {ACCEPTED}")
    else:
        crystal = _read_density(path, kind, unit, limits)
        points = crystal.shape[0] * crystal.shape[1] * crystal.shape[2]
        if points > limits.grid_points:
            raise RhosightError(
                f"{path}: the grid has {'×'.join(map(str, crystal.shape))} points; this page "
                f"accepts at most {limits.grid_points:,}, so write a coarser one"
            )
    atoms = len(as_structure(crystal))
    if atoms > limits.atoms:
        raise _make_atoms_error(path, atoms, limits)
    return crystal


def add_difference(crystal: Crystal) -> tuple[Crystal, list[str]]:
    """Add ``difference`` to a density with ``total`` only, from the free-atom table.

    Returns
    -------
    The crystal, unchanged if it needs no ``difference`` or cannot get one, and notes on it.
    """
    if not isinstance(crystal, ChargeDensity) or "difference" in crystal.grids:
        return crystal, []
    if "total" not in crystal.grids:
        return crystal, []
    try:
        return difference_from_total(crystal), [
            "The difference density is the total density minus superposed free atoms from "
            "rhosight's own table. It is meaningful outside the atomic cores only."
        ]
    except RhosightError as error:
        return crystal, [_make_sentence(error)]


def predict_density(structure: Structure) -> tuple[Crystal, list[str]]:
    """Predict the density of a crystal without one, if that takes seconds.

    Returns
    -------
    The density, or the structure if it cannot be predicted here, and notes on it.
    """
    from ..ecd.model import load_density_model  # needs PyTorch
    from ..ecd.primitive import find_primitive

    volume = find_primitive(structure).structure.volume
    if volume > LARGEST_PRIMITIVE:
        return structure, [
            f"The density of a primitive cell of {volume:.0f} Å³ is not predicted here, because "
            "that takes more than seconds; use `rhosight density`."
        ]
    try:
        density = load_density_model().predict_density(structure)
    except RhosightError as error:
        return structure, [_make_sentence(error)]
    expected = density.provenance["error"]
    notes = [
        "The densities below are predicted from the structure, not calculated; the expected error "
        f"is {100 * expected['expected']:.2g} % of the electrons (90 % of crystals: below "
        f"{100 * expected['bound']:.2g} %). The promolecule consists of free atoms.",
        *(f"For the predicted density: {reason}." for reason in density.provenance["outside"]),
    ]
    return density, notes


@cache
def load_materials() -> Dataset:
    """Load the bundled materials, which a visitor can choose from."""
    return load_dataset(DATASET)


def save_crystal(crystal: Crystal, material_id: str | None, folder: Path) -> None:
    """Save a crystal for :func:`load_crystal`."""
    if material_id:
        (folder / _MATERIAL).write_text(json.dumps(material_id))
    elif isinstance(crystal, ChargeDensity):
        named = replace(crystal, name="upload")
        Dataset.from_densities([named]).to_parquet(folder / _DENSITY, compression_level=1)
    else:
        (folder / _STRUCTURE).write_text(json.dumps(crystal.as_dict()))


def load_crystal(folder: Path) -> Crystal:
    """Load the crystal that an earlier job saved in this folder."""
    if (folder / _MATERIAL).exists():
        return load_materials()[json.loads((folder / _MATERIAL).read_text())].density
    if (folder / _DENSITY).exists():
        return Dataset.from_parquet(folder / _DENSITY)[0].density
    if (folder / _STRUCTURE).exists():
        return parse_structure_json((folder / _STRUCTURE).read_bytes(), _STRUCTURE)
    raise RhosightError("this material is no longer available; send the file again")


def _read_cif(path: Path, limits: Limits) -> Structure:
    if path.stat().st_size > limits.structure_bytes:
        raise RhosightError(
            f"{path}: the CIF is larger than {limits.structure_bytes / MIB:g} MiB; send one with a "
            "single crystal structure"
        )
    text = read_text(path, limits.structure_bytes)
    return read_cif(text, str(path), limits.atoms)


def _read_density(path: Path, kind: str, unit: str, limits: Limits) -> ChargeDensity:
    """Read a density file; errors name the controls of the page as the cure."""
    said: Any = {"total": None, CERTAIN: "total"}.get(kind, kind)
    unit_of_values: Any = unit or None
    try:
        return read_density(path, said, unit_of_values, max_bytes=limits.text_bytes)
    except RhosightError as error:
        text = str(error).replace("kind='total' (--kind total)", f"that it contains `{CERTAIN}`")
        raise RhosightError(_OPTION.sub("", text)) from error


def _recognise(path: Path) -> str:
    """Return the format of a density file; the error names the formats of the page."""
    try:
        return recognise(path)
    except UnknownFormat as error:
        raise RhosightError(f"{path}: not a file of a known format; send {ACCEPTED}") from error


def _make_atoms_error(path: Path, atoms: int, limits: Limits) -> RhosightError:
    return RhosightError(
        f"{path}: {atoms} atoms; this page accepts at most {limits.atoms}, so send the primitive "
        "cell"
    )


def _make_sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
