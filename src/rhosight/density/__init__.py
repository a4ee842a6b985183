"""Charge densities on grids, their files, and their lattice planes."""

from .charge_density import (
    KINDS,
    MAX_SPACING_RATIO,
    STORED_KINDS,
    ChargeDensity,
    Kind,
    StoredKind,
    check_grid_fits_cell,
)
from .crystals import as_structure
from .cube import read_cube
from .difference import compute_difference
from .electrons import UNITS, Unit, check_electron_count, estimate_electrons
from .files import read_density, recognise
from .plausibility import check_density
from .stream import MAX_BYTES
from .vasp import ALL_ELECTRON, from_pymatgen, read_chgcar
from .xsf import read_xsf

__all__ = [
    "ALL_ELECTRON",
    "KINDS",
    "MAX_BYTES",
    "MAX_SPACING_RATIO",
    "STORED_KINDS",
    "UNITS",
    "ChargeDensity",
    "Kind",
    "StoredKind",
    "Unit",
    "as_structure",
    "check_density",
    "check_electron_count",
    "check_grid_fits_cell",
    "compute_difference",
    "estimate_electrons",
    "from_pymatgen",
    "read_chgcar",
    "read_cube",
    "read_density",
    "read_xsf",
    "recognise",
]
