"""Charge densities on grids: one object, and the files that it is read from."""

from .charge_density import (
    KINDS,
    MAX_SPACING_RATIO,
    STORED_KINDS,
    ChargeDensity,
    Kind,
    StoredKind,
    check_grid_fits_cell,
)
from .cube import read_cube
from .difference import difference_of
from .electrons import UNITS, Unit, electron_count_check, expected_electrons
from .files import read_density, recognise
from .stream import MAX_BYTES
from .vasp import ALL_ELECTRON, read_chgcar
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
    "check_grid_fits_cell",
    "difference_of",
    "electron_count_check",
    "expected_electrons",
    "read_chgcar",
    "read_cube",
    "read_density",
    "read_xsf",
    "recognise",
]
