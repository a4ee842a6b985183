"""Convert the crystals that users hold to those that models read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pymatgen.core import Structure

from ..dataset.dataset import Dataset, Lazy, Material
from ..density.charge_density import ChargeDensity
from ..density.crystals import StructureLike, as_structure, check_crystal
from ..density.vasp import from_pymatgen
from ..errors import RhosightError

DensityLike = Any
"""A charge density in any form that :func:`as_densities` takes: ``ChargeDensity``, pymatgen
``Chgcar``, or ``Material``. pymatgen is not imported for the type."""

Densities = Dataset | Sequence[ChargeDensity]
Crystals = Dataset | Sequence[ChargeDensity] | dict[str, Structure]
Materials = (
    Dataset
    | Sequence[DensityLike]
    | Sequence[StructureLike]
    | Mapping[str, DensityLike]
    | Mapping[str, StructureLike]
    | DensityLike
    | StructureLike
)
"""One crystal, several, or name → crystal."""


def as_densities(materials: Materials) -> Densities:
    """Return the charge densities that a model reads.

    Parameters
    ----------
    materials
        A dataset; a ``ChargeDensity``, pymatgen ``Chgcar`` or ``Material``; a sequence of these; or
        name → one of these. Sequences that read files on demand are returned as they are.

    Raises
    ------
    RhosightError
        For a structure without density, a file name, or an object of another type.
    """
    if isinstance(materials, Dataset | Lazy):
        return materials
    if isinstance(materials, Mapping):
        return [replace(_as_density(one), name=name) for name, one in materials.items()]
    return [_as_density(one) for one in _as_list(materials)]


def as_crystals(materials: Materials) -> Crystals:
    """Return the densities, or structures by name for a model that reads structures.

    Parameters
    ----------
    materials
        What :func:`as_densities` takes, or a pymatgen ``Structure`` or ASE ``Atoms``, a sequence of
        these, or name → one of these. A structure without a name gets its formula, numbered from
        the second of the same formula.

    Raises
    ------
    RhosightError
        For a file name or an object that is not a crystal.
    """
    if isinstance(materials, Dataset | Lazy):
        return materials
    if isinstance(materials, Mapping):
        return {str(name): _as_structure(one) for name, one in materials.items()}
    crystals = _as_list(materials)
    if all(_has_density(one) for one in crystals):
        return [_as_density(one) for one in crystals]
    named: dict[str, Structure] = {}
    for crystal in crystals:
        structure = _as_structure(crystal)
        name = getattr(crystal, "name", "") or structure.composition.reduced_formula
        count, unique = 1, name
        while unique in named:
            count += 1
            unique = f"{name} ({count})"
        named[unique] = structure
    return named


def _as_list(materials: Any) -> list[Any]:
    """Return several crystals as a list; one crystal may be iterable, over its sites."""
    is_one = (
        isinstance(materials, Structure | str | bytes | os.PathLike)
        or hasattr(materials, "structure")
        or hasattr(materials, "get_chemical_symbols")
        or not isinstance(materials, Iterable)
    )
    return [materials] if is_one else list(materials)


def _has_density(crystal: Any) -> bool:
    return isinstance(crystal, ChargeDensity | Material) or hasattr(crystal, "data_aug")


def _as_density(crystal: Any) -> ChargeDensity:
    if isinstance(crystal, ChargeDensity):
        check_crystal(crystal.structure, crystal.name or crystal.structure.formula)
        return crystal
    if isinstance(crystal, Material):
        return crystal.density
    if hasattr(crystal, "data_aug"):  # a Chgcar, or what from_pymatgen refuses with a reason
        return from_pymatgen(crystal)
    formula = _as_structure(crystal).composition.reduced_formula
    raise RhosightError(
        f"{formula}: this model reads charge densities; use the model no-dft for a structure alone"
    )


def _as_structure(crystal: Any) -> Structure:
    if isinstance(crystal, str | os.PathLike):
        raise RhosightError(
            f"{os.fspath(crystal)!r} is a file name, not a crystal; read the file with "
            "rhosight.read_density, or a structure with rhosight.read_structure"
        )
    structure = as_structure(crystal)
    check_crystal(structure, structure.composition.reduced_formula)
    return structure
