"""An upload becomes a crystal: formats by content, limits, and one sentence for what is wrong."""

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
from ..density.charge_density import ChargeDensity, StoredKind, check_crystal
from ..density.files import read_density, recognise
from ..density.free_atoms import difference_from_total
from ..errors import RhosightError, first_line
from ..inputs.descriptors.blocks import structure_of
from .limits import MIB, Limits

DATASET = "mp-fcc"

Crystal = ChargeDensity | Structure

SENT = "a CHGCAR, cube or XSF file (plain, .gz, .bz2, .xz), or a CIF"
"""What the page reads, for messages."""

_UNKNOWN = "not a density file that is known"
_CIF = re.compile(rb"^\s*(?:#[^\n]*\n\s*)*data_", re.IGNORECASE)
_CIF_NAME = re.compile(r"\.(cif|mcif)$", re.IGNORECASE)
_DENSITY, _STRUCTURE, _MATERIAL = "density.parquet", "structure.json", "material.json"


def read_upload(path: Path, kind: StoredKind, limits: Limits) -> Crystal:
    """A density file, or the structure of a CIF.

    Parameters
    ----------
    path
        The upload, under the name that the visitor gave it.
    kind
        What a density file holds.
    limits
        Of text, grid and atoms.

    Raises
    ------
    RhosightError
        If it is neither, damaged, or beyond a limit.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        raise RhosightError(f"{path}: is empty; send the file again")
    if _CIF_NAME.search(path.name) or _CIF.match(start):
        crystal: Crystal = _read_cif(path, limits)
    elif _format(path) == "HDF5":
        raise RhosightError(f"{path}: this page reads no HDF5; send {SENT}")
    else:
        crystal = read_density(path, kind, max_bytes=limits.text_bytes)
        points = crystal.shape[0] * crystal.shape[1] * crystal.shape[2]
        if points > limits.grid_points:
            raise RhosightError(
                f"{path}: a grid of {'×'.join(map(str, crystal.shape))} points; this page takes "
                f"{limits.grid_points:,} at most, so write a coarser one"
            )
    atoms = len(structure_of(crystal))
    if atoms > limits.atoms:
        raise _too_many(path, atoms, limits)
    return crystal


def with_difference(crystal: Crystal) -> tuple[Crystal, list[str]]:
    """A density of `total` alone gets its `difference` from the table of free atoms; and notes."""
    if not isinstance(crystal, ChargeDensity) or "difference" in crystal.grids:
        return crystal, []
    if "total" not in crystal.grids:
        return crystal, []
    try:
        return difference_from_total(crystal), [
            "The difference density is total minus superposed free atoms of rhosight's own table: "
            "read it outside the cores."
        ]
    except RhosightError as error:
        return crystal, [_sentence(error)]


@cache
def materials() -> Dataset:
    """The bundled materials, which a visitor can choose from."""
    return load_dataset(DATASET)


def keep(crystal: Crystal, material_id: str | None, folder: Path) -> None:
    """Write what :func:`kept` reads."""
    if material_id:
        (folder / _MATERIAL).write_text(json.dumps(material_id))
    elif isinstance(crystal, ChargeDensity):
        named = replace(crystal, name="upload")
        Dataset.from_densities([named]).to_parquet(folder / _DENSITY, compression_level=1)
    else:
        (folder / _STRUCTURE).write_text(json.dumps(crystal.as_dict()))


def kept(folder: Path) -> Crystal:
    """The crystal of an earlier job in this folder."""
    if (folder / _MATERIAL).exists():
        return materials()[json.loads((folder / _MATERIAL).read_text())].density
    if (folder / _DENSITY).exists():
        return Dataset.from_parquet(folder / _DENSITY)[0].density
    if (folder / _STRUCTURE).exists():
        return Structure.from_dict(json.loads((folder / _STRUCTURE).read_text()))
    raise RhosightError("this material is no longer here; send the file again")


def _read_cif(path: Path, limits: Limits) -> Structure:
    from pymatgen.io.cif import CifParser

    if path.stat().st_size > limits.structure_bytes:
        raise RhosightError(
            f"{path}: a CIF of more than {limits.structure_bytes / MIB:g} MiB; send one with a "
            "single crystal structure"
        )
    text = path.read_bytes().decode("utf-8", errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser = CifParser.from_str(text)
            sites = [len(block.get("_atom_site_label", ())) for block in parser.as_dict().values()]
            if max(sites, default=0) > limits.atoms:  # the parser compares each with each
                raise _too_many(path, max(sites), limits)
            structures = parser.parse_structures(primitive=False)
    except RhosightError:
        raise
    except Exception as error:  # the parser raises whatever its dictionaries and regexes raise
        if isinstance(error, MemoryError):
            raise
        reason = "it has no structure" if isinstance(error, KeyError) else first_line(error)
        raise RhosightError(
            f"{path}: not a readable CIF ({reason}); write it again, for example with VESTA"
        ) from error
    structure = structures[0].remove_oxidation_states()
    check_crystal(structure, str(path))
    return structure


def _format(path: Path) -> str:
    try:
        return recognise(path)
    except RhosightError as error:
        if _UNKNOWN not in str(error):
            raise
        # the library reads more kinds of density than the page, and the page more than densities
        raise RhosightError(f"{path}: {_UNKNOWN}; send {SENT}") from error


def _too_many(path: Path, atoms: int, limits: Limits) -> RhosightError:
    return RhosightError(
        f"{path}: {atoms} atoms; this page takes {limits.atoms} at most, so send the primitive cell"
    )


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
