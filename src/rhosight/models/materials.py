"""Convert the crystals that users hold to those that models read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from ..dataset.dataset import Dataset, Material
from ..dataset.lazy import Lazy
from ..dataset.packing import BUNDLED, load_dataset
from ..dataset.sources.search import find_materials, is_dataset_folder
from ..density.bare_crystal import BareCrystal, Crystal, require_density
from ..density.charge_density import ChargeDensity
from ..density.crystals import StructureLike, as_structure, check_crystal
from ..density.files import read_density
from ..density.structures import read_structure
from ..density.vasp import ALL_ELECTRON, from_pymatgen
from ..errors import RhosightError

DensityLike = Any
"""A charge density in any form that :func:`as_densities` takes: ``ChargeDensity``, pymatgen
``Chgcar``, ``Material``, or the path of a file. pymatgen is not imported for the type."""

Densities = Dataset | Sequence[ChargeDensity]
Crystals = Dataset | Sequence[Crystal] | Sequence[ChargeDensity] | dict[str, Structure]
Materials = (
    Dataset
    | Sequence[DensityLike]
    | Sequence[StructureLike]
    | Mapping[str, DensityLike]
    | Mapping[str, StructureLike]
    | DensityLike
    | StructureLike
)
"""One crystal, several, name → crystal, a folder of files, or the path of a dataset."""


def list_densities(materials: Any) -> Any:
    """Return the densities of a dataset, and any other collection as it is."""
    return materials.densities if isinstance(materials, Dataset) else materials


def list_crystals(materials: Any) -> Any:
    """Return the crystals of a dataset without densities, and other collections as is."""
    return materials.crystals if isinstance(materials, Dataset) else materials


def name_crystals(materials: Crystals) -> Any:
    """Return structures by name as a list of crystals; others as they are."""
    if isinstance(materials, dict):
        return [BareCrystal(structure, name) for name, structure in materials.items()]
    return materials


def as_densities(materials: Materials) -> Densities:
    """Return the charge densities that a model reads.

    Parameters
    ----------
    materials
        A dataset, its name or its file; a ``ChargeDensity``, pymatgen ``Chgcar``, ``Material``,
        the path of a density file or of a folder with some; a sequence of these; or name → one of
        these. Files of which there are only paths are read when they are needed.

    Raises
    ------
    RhosightError
        For a structure without density, a file that cannot be read, or an object of another type.
    """
    materials = _open(materials, structures=False)
    if isinstance(materials, Lazy):
        lazy = materials
        return Lazy(lambda number: _check_content(lazy[number]), len(lazy))
    if isinstance(materials, Dataset):
        return materials
    if isinstance(materials, Mapping):
        return [replace(_as_density(one), name=name) for name, one in materials.items()]
    return [_as_density(one) for one in _as_list(materials)]


def as_crystals(materials: Materials) -> Crystals:
    """Return the densities, or structures by name for a model that reads structures.

    Parameters
    ----------
    materials
        What :func:`as_densities` takes, or a pymatgen ``Structure``, ASE ``Atoms`` or the path of
        a CIF or POSCAR file, a sequence of these, or name → one of these. A structure without a
        name gets its formula, numbered from the second of the same formula.

    Raises
    ------
    RhosightError
        For a file that cannot be read, or an object that is not a crystal.
    """
    materials = _open(materials, structures=True)
    if isinstance(materials, Dataset | Lazy):
        return materials
    if isinstance(materials, Mapping):
        return {str(name): _as_structure(one) for name, one in materials.items()}
    crystals = _as_list(materials)
    if all(_has_density(one) for one in crystals):
        return [one.crystal if isinstance(one, Material) else _as_density(one) for one in crystals]
    named: dict[str, Structure] = {}
    for crystal in crystals:
        structure = _as_structure(crystal)
        name = _get_name(crystal) or structure.composition.reduced_formula
        count, unique = 1, name
        while unique in named:
            count += 1
            unique = f"{name} ({count})"
        named[unique] = structure
    return named


def _open(materials: Any, structures: bool) -> Any:
    """Return materials with folders replaced by their files, and datasets loaded."""
    if _is_path(materials):
        path = Path(materials)
        if materials in BUNDLED or path.suffix.lower() == ".parquet":
            return load_dataset(materials)
        if path.is_dir() and is_dataset_folder(path):
            return load_dataset(path)
        materials = [path]
    if isinstance(materials, Dataset | Lazy | Mapping):
        return materials
    crystals: list[Any] = []
    for one in _as_list(materials):
        is_folder = _is_path(one) and Path(one).is_dir()
        crystals += find_materials(Path(one), structures).files if is_folder else [one]
    if structures or not crystals or not all(map(_is_path, crystals)):
        return crystals
    return Lazy(lambda number: read_density(crystals[number]), len(crystals))


def _is_path(crystal: Any) -> bool:
    return isinstance(crystal, str | os.PathLike)


def _get_name(crystal: Any) -> str:
    return os.fspath(crystal) if _is_path(crystal) else getattr(crystal, "name", "")


def _as_list(materials: Any) -> list[Any]:
    """Return several crystals as a list."""
    return [materials] if is_one_crystal(materials) else list(materials)


def is_one_crystal(materials: Any) -> bool:
    """Return whether materials are one crystal (maybe iterable over sites) or a path."""
    return (
        isinstance(materials, Structure | str | bytes | os.PathLike)
        or hasattr(materials, "structure")
        or hasattr(materials, "get_chemical_symbols")
        or not isinstance(materials, Iterable)
    )


def _has_density(crystal: Any) -> bool:
    return isinstance(crystal, ChargeDensity | Material) or hasattr(crystal, "data_aug")


def _as_density(crystal: Any) -> ChargeDensity:
    if isinstance(crystal, BareCrystal):
        return require_density(crystal)
    if isinstance(crystal, ChargeDensity):
        check_crystal(crystal.structure, crystal.name or crystal.structure.formula)
        return _check_content(crystal)
    if isinstance(crystal, Material):
        return crystal.density
    if _is_path(crystal):
        return _check_content(read_density(crystal))
    if hasattr(crystal, "data_aug"):  # a Chgcar, or what from_pymatgen refuses with a reason
        return from_pymatgen(crystal)
    formula = _as_structure(crystal).composition.reduced_formula
    raise RhosightError(
        f"{formula}: this model reads charge densities; use the model no-dft for a structure alone"
    )


def _check_content(density: ChargeDensity) -> ChargeDensity:
    """Return a density if it is that of the valence electrons of a crystal, at least.

    Raises
    ------
    RhosightError
        For VASP's AECCAR0 and AECCAR1: core electrons alone, and superposed atoms.
    """
    content = str(density.provenance.get("density", ""))
    if content in (ALL_ELECTRON["AECCAR0"], ALL_ELECTRON["AECCAR1"]):
        raise RhosightError(
            f"{density.name}: holds the {content}, not the density of the crystal; give the CHGCAR "
            "of the calculation"
        )
    return density


def _as_structure(crystal: Any) -> Structure:
    if _is_path(crystal):
        return read_structure(crystal)
    structure = as_structure(crystal)
    check_crystal(structure, structure.composition.reduced_formula)
    return structure
