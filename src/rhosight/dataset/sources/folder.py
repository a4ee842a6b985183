"""Read a folder of materials: labels as CSV, structures as CIF, densities as HDF5.

materials.csv                 one row per material: material_id, and any labels
structures/<material_id>.cif  the cell of the grids
densities.h5                  /<material_id>/total, /difference, /spin: e/Å³, grid[i, j, k]
provenance.json               optional: name, attribution, licence, units of other targets, and
                              "provenance", what is known about the densities
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
from pymatgen.core import Composition, Structure

from ...density.charge_density import ChargeDensity, add_notes
from ...density.hdf5 import read_grid
from ...density.structures import get_notes, read_structure
from ...errors import RhosightError, first_line
from ..schema import KNOWN
from .directory import guess_pattern
from .tables import to_numbers

LABELS, STRUCTURES, DENSITIES, ABOUT = (
    "materials.csv",
    "structures",
    "densities.h5",
    "provenance.json",
)


@dataclass(frozen=True)
class FolderContent:
    """Hold the content of a folder.

    Attributes
    ----------
    densities
        One per valid material, in the order of ``materials.csv``, named by material id.
    labels
        The rows of ``materials.csv`` of these materials, indexed by material_id.
    problems
        Material id → why it is not included.
    about
        Content of ``provenance.json``, or of its replacement.
    """

    densities: list[ChargeDensity]
    labels: pd.DataFrame
    problems: dict[str, str]
    about: dict[str, Any] = field(default_factory=dict)


def read_folder(
    path: str | os.PathLike, about: Mapping[str, Any] | str | os.PathLike | None = None
) -> FolderContent:
    """Read every material of a folder, and report bad ones by name.

    Parameters
    ----------
    path
        The folder.
    about
        Replaces ``provenance.json``: its content, or the path of such a file.

    Raises
    ------
    RhosightError
        If the folder lacks a part, a part cannot be read, an id is empty or duplicated, or no
        material is valid.
    """
    folder = Path(path)
    for part in (LABELS, STRUCTURES, DENSITIES):
        if not (folder / part).exists():
            raise RhosightError(
                f"{folder}: no {part}; a folder of materials holds {LABELS}, {STRUCTURES}/ and "
                f"{DENSITIES}{_suggest_build(folder)}"
            )
    labels = _read_labels(folder / LABELS)
    about = _read_about(folder / ABOUT if about is None else about)
    densities: list[ChargeDensity] = []
    problems: dict[str, str] = {}
    provenance = about.get("provenance", {})
    with _open_h5(folder / DENSITIES) as file:
        for material_id in map(str, labels.index):
            row = labels.loc[material_id]
            assert isinstance(row, pd.Series)  # ids are unique
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
        raise RhosightError(f"{folder}: no valid material; the first problem: {first}")
    kept = labels.loc[[density.name for density in densities]]
    return FolderContent(densities, kept, problems, about)


def find_density_pattern(folder: Path) -> str:
    """Return a glob pattern for density files if a folder is no dataset."""
    if any((folder / part).exists() for part in (LABELS, STRUCTURES, DENSITIES)):
        return ""
    if any(folder.glob("*.parquet")):
        return ""
    return guess_pattern(folder)


def _suggest_build(folder: Path) -> str:
    """Return how to build a dataset from a folder of density files, if it is one."""
    if not find_density_pattern(folder):
        return ""
    return (
        "; it holds density files: `rhosight data build directory "
        f"{folder} mine.parquet` makes a dataset of them"
    )


def _read_labels(path: Path) -> pd.DataFrame:
    try:
        labels = pd.read_csv(path, dtype={"material_id": str, "formula": str})
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise RhosightError(
            f"{path}: not a readable CSV file ({first_line(error)}); save it again"
        ) from error
    if "material_id" not in labels.columns:
        raise RhosightError(
            f"{path}: no column material_id, only {', '.join(labels.columns)[:80]}; add the names "
            f"of the CIF files and of the groups in {DENSITIES}"
        )
    if labels["material_id"].isna().any():
        row = int(np.flatnonzero(labels["material_id"].isna())[0])
        raise RhosightError(f"{path}: material_id is empty in line {row + 2}; fill it in")
    repeated = labels["material_id"][labels["material_id"].duplicated()]
    if len(repeated):
        raise RhosightError(f"{path}: {repeated.iloc[0]} is duplicated; keep one row")
    labels = labels.set_index("material_id")
    for name in labels.columns:
        if name in KNOWN and pa.types.is_floating(KNOWN[name].type):
            labels[name] = to_numbers(labels[name], path)
    return labels


def _read_about(about: Mapping[str, Any] | str | os.PathLike) -> dict[str, Any]:
    if isinstance(about, Mapping):
        return dict(about)
    path = Path(about)
    if not path.exists() and path.name == ABOUT:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RhosightError(
            f"{path}: not a readable JSON file ({first_line(error)}); correct it"
        ) from error
    if not isinstance(content, dict):
        raise RhosightError(f"{path}: must hold a JSON object, see docs/dataset.md")
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
    """Read one material, and compare it with its row."""
    structure = _read_structure(folder / STRUCTURES / f"{material_id}.cif", material_id)
    _check_row(structure, row, material_id)
    if material_id not in file:
        raise RhosightError(
            f"{material_id}: no density in {DENSITIES}; add the group, or remove the row"
        )
    try:
        kinds = list(file[material_id])
        grids = {kind: read_grid(file, f"{material_id}/{kind}", material_id) for kind in kinds}
    except (OSError, AttributeError, TypeError, ValueError, KeyError, RuntimeError) as error:
        raise RhosightError(
            f"{material_id}: its group in {DENSITIES} cannot be read ({first_line(error)}); write "
            "the file again"
        ) from error
    density = add_notes(
        ChargeDensity(structure, grids, name=material_id, provenance=provenance),
        get_notes(structure),
    )
    declared = row.get("grid")
    shape = "x".join(map(str, density.shape))
    if isinstance(declared, str) and declared.replace("×", "x") != shape:
        raise RhosightError(
            f"{material_id}: {LABELS} declares the grid {declared}, {DENSITIES} holds {shape}; "
            "correct the outdated one"
        )
    return density


def _read_structure(path: Path, material_id: str) -> Structure:
    if not path.exists():
        raise RhosightError(f"{material_id}: no {STRUCTURES}/{path.name}; add it")
    try:
        return read_structure(path)
    except RhosightError as error:
        what = str(error).removeprefix(f"{path}: ")
        raise RhosightError(f"{material_id}: {STRUCTURES}/{path.name}: {what}") from error


def _check_row(structure: Structure, row: pd.Series, material_id: str) -> None:
    """Check that structure and row agree; fields that the row omits are skipped."""
    expected = {"formula": structure.composition.reduced_formula, "nsites": len(structure)}
    for name, value in expected.items():
        declared = row.get(name)
        if pd.notna(declared) and _reduce_formula(declared) != value:
            raise RhosightError(
                f"{material_id}: {name} is {declared} in {LABELS} and {value} in its CIF file; "
                "correct the wrong one"
            )


def _reduce_formula(value: Any) -> Any:
    """Return a formula in pymatgen's order of elements; other values unchanged."""
    try:
        return Composition(value).reduced_formula if isinstance(value, str) else value
    except ValueError:
        return value
