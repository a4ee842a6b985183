"""The superposition of free atoms that predicted differences are added to."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Structure

from ..density.free_atoms import KINETIC, promolecule

CUTOFF = 400.0
"""eV; plane-wave cut-off of the calculations that the model learns from."""


def superpose(structure: Structure, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the free atoms' valence and smooth cores, e/Å³, shape (nx, ny, nz).

    The cores contain the wave vectors of the training calculations on any grid, so that points
    have the same values on coarse and fine ones.
    """
    wanted = np.sqrt(2 * CUTOFF / KINETIC)
    holds = np.pi * np.array(shape) / np.array(structure.lattice.abc)
    # the margin covers the rounding of a limit that lies on the boundary
    finer = np.maximum(np.ceil(wanted / holds * (1 - 1e-3)), 1).astype(int)
    nx, ny, nz = (int(n) for n in finer * shape)
    fine = promolecule(structure, (nx, ny, nz), cutoff=CUTOFF)
    return fine[tuple(slice(None, None, int(step)) for step in finer)]
