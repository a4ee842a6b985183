"""A folder of materials: labels in a CSV, structures as CIFs, densities in one HDF5 file.

materials.csv                 one row a material: material_id, and whatever labels there are
structures/<material_id>.cif  the cell of the grids
densities.h5                  /<material_id>/total, /difference, /spin: e/Å³, grid[i, j, k]
provenance.json               optional: name, attribution, licence, units of further targets,
                              and "provenance", what is known of the densities
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
from pymatgen.core import Composition, Structure

from ...density.charge_density import ChargeDensity
from ...errors import RhosightError, first_line
from ..schema import KNOWN
from .directory import densities_below
from .tables import numbers_of

LABELS, STRUCTURES, DENSITIES, ABOUT = (
    "materials.csv",
    "structures",
    "densities.h5",
    "provenance.json",
)


@dataclass(frozen=True)
class FolderContent:
    """What a folder holds.

    Attributes
    ----------
    densities
        One for each sound material, in the order of ``materials.csv``, named by material id.
    labels
        The rows of ``materials.csv`` of these materials, indexed by material_id.
    problems
        Material id → why it is not among them.
    about
        Content of ``provenance.json``, or what was given in its place.
    """

    densities: list[ChargeDensity]
    labels: pd.DataFrame
    problems: dict[str, str]
    about: dict[str, Any] = field(default_factory=dict)


def read_folder(
    path: str | os.PathLike, about: Mapping[str, Any] | str | os.PathLike | None = None
) -> FolderContent:
    """Read every material of a folder; a bad one is reported by name, never dropped silently.

    Parameters
    ----------
    path
        The folder.
    about
        Stands in for ``provenance.json``: its content, or the path of another such file.

    Raises
    ------
    RhosightError
        If the folder lacks a part, a part cannot be read, an id is empty or stands twice, or no
        material is sound.
    """
    folder = Path(path)
    for part in (LABELS, STRUCTURES, DENSITIES):
        if not (folder / part).exists():
            raise RhosightError(
                f"{folder}: no {part}; a folder of materials holds {LABELS}, {STRUCTURES}/ and "
                f"{DENSITIES}{_other_densities(folder)}"
            )
    labels = _read_labels(folder / LABELS)
    about = _read_about(folder / ABOUT if about is None else about)
    densities, problems = [], {}
    provenance = about.get("provenance", {})
    with _open_h5(folder / DENSITIES) as file:
        for material_id, row in labels.iterrows():
            try:
                densities.append(_read_material(folder, file, material_id, row, provenance))
            except RhosightError as error:
                problems[material_id] = str(error)
        known = set(labels.index)
        for material_id in sorted(set(file) - known):
            problems[material_id] = f"{material_id}: in {DENSITIES} but not in {LABELS}"
    for cif in sorted((folder / STRUCTURES).glob("*.cif")):
        if cif.stem not in known:
            problems.setdefault(cif.stem, f"{cif.stem}: in {STRUCTURES}/ but not in {LABELS}")
    if not densities:
        first = next(iter(problems.values()), f"{LABELS} is empty")
        raise RhosightError(f"{folder}: no sound material; the first problem: {first}")
    kept = labels.loc[[density.name for density in densities]]
    return FolderContent(densities, kept, problems, about)


def densities_instead(folder: Path) -> str:
    """A shell's pattern for the density files below a folder that is no dataset; or empty."""
    if any((folder / part).exists() for part in (LABELS, STRUCTURES, DENSITIES)):
        return ""
    if any(folder.glob("*.parquet")):
        return ""
    return densities_below(folder)


def _other_densities(folder: Path) -> str:
    """How a folder of densities becomes a dataset, if it is one."""
    if not densities_instead(folder):
        return ""
    return (
        "; it holds density files, of which `rhosight data build directory "
        f"{folder} mine.parquet` makes a dataset"
    )


def _read_labels(path: Path) -> pd.DataFrame:
    try:
        labels = pd.read_csv(path, dtype={"material_id": str, "formula": str})
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise RhosightError(f"{path}: not a readable CSV ({first_line(error)})") from error
    if "material_id" not in labels.columns:
        raise RhosightError(
            f"{path}: no column material_id, found {', '.join(labels.columns)[:80]}; it names the "
            "CIF and the group in densities.h5"
        )
    if labels["material_id"].isna().any():
        row = int(np.flatnonzero(labels["material_id"].isna())[0])
        raise RhosightError(f"{path}: material_id is empty in line {row + 2}; fill it")
    repeated = labels["material_id"][labels["material_id"].duplicated()]
    if len(repeated):
        raise RhosightError(f"{path}: {repeated.iloc[0]} stands more than once; keep one row")
    labels = labels.set_index("material_id")
    for name in labels.columns:
        if name in KNOWN and pa.types.is_floating(KNOWN[name].type):
            labels[name] = numbers_of(labels[name], path)
    return labels


def _read_about(about: Mapping[str, Any] | str | os.PathLike) -> dict[str, Any]:
    if isinstance(about, Mapping):
        return dict(about)
    path = Path(about)
    if not path.exists() and path.name == ABOUT:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RhosightError(f"{path}: not a readable JSON file ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise RhosightError(f"{path}: should hold a JSON object, see docs/dataset.md")
    return content


def _open_h5(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise RhosightError(
            f"{path}: not a readable HDF5 file ({first_line(error)}); copy or write it again"
        ) from error


def _read_material(
    folder: Path, file: h5py.File, material_id: str, row: pd.Series, provenance: Mapping[str, Any]
) -> ChargeDensity:
    """One material, checked against what its row says."""
    structure = _read_structure(folder / STRUCTURES / f"{material_id}.cif", material_id)
    _check_row(structure, row, material_id)
    if material_id not in file:
        raise RhosightError(f"{material_id}: no density in {DENSITIES}; add the group or the row")
    try:
        grids = {kind: grid[()] for kind, grid in file[material_id].items()}
    except (OSError, AttributeError, TypeError) as error:
        raise RhosightError(
            f"{material_id}: its group in {DENSITIES} cannot be read ({first_line(error)})"
        ) from error
    for kind, grid in grids.items():
        if not np.issubdtype(np.asarray(grid).dtype, np.floating):
            raise RhosightError(f"{material_id}: `{kind}` in {DENSITIES} is no array of floats")
    density = ChargeDensity(structure, grids, name=material_id, provenance=provenance)
    declared = row.get("grid")
    shape = "x".join(map(str, density.shape))
    if isinstance(declared, str) and declared.replace("×", "x") != shape:
        raise RhosightError(
            f"{material_id}: {LABELS} declares the grid {declared}, {DENSITIES} holds {shape}; "
            "one of them is stale"
        )
    return density


def _read_structure(path: Path, material_id: str) -> Structure:
    if not path.exists():
        raise RhosightError(f"{material_id}: no {STRUCTURES}/{path.name}; add it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Structure.from_file(path)
    except Exception as error:  # pymatgen's CIF parser raises whatever it trips over
        raise RhosightError(
            f"{material_id}: {STRUCTURES}/{path.name} is no readable CIF ({first_line(error)})"
        ) from error


def _check_row(structure: Structure, row: pd.Series, material_id: str) -> None:
    """Structure and row speak of the same material; what the row leaves out is not compared."""
    found = {"formula": structure.composition.reduced_formula, "nsites": len(structure)}
    for name, value in found.items():
        declared = row.get(name)
        if pd.notna(declared) and _reduced(declared) != value:
            raise RhosightError(
                f"{material_id}: {LABELS} says {name} {declared}, its CIF {value}; one is wrong"
            )


def _reduced(value: Any) -> Any:
    """A formula in pymatgen's order of elements; anything else as it is."""
    try:
        return Composition(value).reduced_formula if isinstance(value, str) else value
    except ValueError:
        return value
