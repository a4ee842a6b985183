"""Crystals without a charge density, where others have one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pymatgen.core import Structure

from ..errors import RhosightError
from .charge_density import ChargeDensity


@dataclass(frozen=True, eq=False)
class BareCrystal:
    """A crystal without a charge density; models of structures and texts read it.

    Parameters
    ----------
    structure
        The crystal, in any cell.
    name
        Name of the material in messages and tables: a file name or a material id.
    provenance
        The origin of the structure.
    """

    structure: Structure
    name: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def grids(self) -> dict[str, Any]:
        """Return no grids, as there are none."""
        return {}


Crystal = ChargeDensity | BareCrystal
"""A material with or without a charge density."""


def require_density(crystal: Crystal) -> ChargeDensity:
    """Return the charge density of a material.

    Raises
    ------
    RhosightError
        If it has none.
    """
    if isinstance(crystal, ChargeDensity):
        return crystal
    name = crystal.name or crystal.structure.composition.reduced_formula
    raise RhosightError(
        f"{name}: there is no charge density, and this needs one; use what reads structures or "
        "texts alone (such as the model or preset no-dft), or keep the materials that have a "
        "density (`rhosight data clean --with-density`)"
    )
