"""Read uploads as crystals, within the limits, and keep them for later jobs."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

from pymatgen.core import Structure

from ..dataset.dataset import Dataset
from ..dataset.packing import load_dataset
from ..density.charge_density import ChargeDensity, StoredKind
from ..density.crystals import as_structure, check_crystal
from ..density.files import UnknownFormat, read_density, recognise
from ..density.free_atoms import difference_from_total
from ..errors import RhosightError, first_line
from .limits import MIB, Limits

DATASET = "mp-fcc"

Crystal = ChargeDensity | Structure

ACCEPTED = "a CHGCAR, cube or XSF file (plain, .gz, .bz2, .xz), or a CIF"
"""Formats that the page reads, for messages."""

_CIF = re.compile(rb"^\s*(?:#[^\n]*\n\s*)*data_", re.IGNORECASE)
_CIF_NAME = re.compile(r"\.(cif|mcif)$", re.IGNORECASE)
_DENSITY, _STRUCTURE, _MATERIAL = "density.parquet", "structure.json", "material.json"


def read_upload(path: Path, kind: StoredKind, limits: Limits) -> Crystal:
    """Read a density file, or the structure of a CIF.

    Parameters
    ----------
    path
        The upload, under the visitor's name for it.
    kind
        Kind of density in a density file.
    limits
        Limits of text, grid and atoms.

    Raises
    ------
    RhosightError
        If the format is unknown, the file is damaged, or a limit is exceeded.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        raise RhosightError(f"{path}: the file is empty; send it again")
    if _CIF_NAME.search(path.name) or _CIF.match(start):
        crystal: Crystal = _read_cif(path, limits)
    elif _recognise(path) == "HDF5":
        raise RhosightError(f"{path}: this page does not read HDF5; send {ACCEPTED}")
    else:
        crystal = read_density(path, kind, max_bytes=limits.text_bytes)
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
        return Structure.from_dict(json.loads((folder / _STRUCTURE).read_text()))
    raise RhosightError("this material is no longer available; send the file again")


def _read_cif(path: Path, limits: Limits) -> Structure:
    from pymatgen.io.cif import CifParser

    if path.stat().st_size > limits.structure_bytes:
        raise RhosightError(
            f"{path}: the CIF is larger than {limits.structure_bytes / MIB:g} MiB; send one with a "
            "single crystal structure"
        )
    text = path.read_bytes().decode("utf-8", errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser = CifParser.from_str(text)
            sites = [len(block.get("_atom_site_label", ())) for block in parser.as_dict().values()]
            if max(sites, default=0) > limits.atoms:  # the parser compares all pairs of sites
                raise _make_atoms_error(path, max(sites), limits)
            structures = parser.parse_structures(primitive=False)
    except RhosightError:
        raise
    except Exception as error:  # the parser raises whatever its dictionaries and regexes raise
        if isinstance(error, MemoryError):
            raise
        reason = "it contains no structure" if isinstance(error, KeyError) else first_line(error)
        raise RhosightError(
            f"{path}: not a readable CIF ({reason}); write it again, for example with VESTA"
        ) from error
    structure = structures[0].remove_oxidation_states()
    check_crystal(structure, str(path))
    return structure


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
