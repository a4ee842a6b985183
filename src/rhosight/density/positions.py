"""Check that the atoms are where the density says they are.

A structure and a density of two settings of one crystal, of other origins or orders of the atoms,
fit in cell, symmetry and electrons. Between the atoms, however, the density follows that of
superposed free atoms, whatever the code.
"""

from __future__ import annotations

import numpy as np

from .neighbours import Samples

# Covalent radii from the nearest atom; further in, pseudo-potentials and semi-core electrons matter
_OUTSIDE = 0.8
# e/Å³; smaller densities count as equal
_SMALL = 0.005
_FEWEST_POINTS = 100
# Standard deviation of the logarithm of the ratio of both densities: at most 0.45 in the bundled
# data, in ionic crystals
_UNLIKE = 0.6
# Correlation of the logarithms, at least 0.46 in the bundled data, and the deviation from which it
# tells something: a homogeneous density has none to show
_UNRELATED, _HOMOGENEOUS = 0.3, 0.1


def check_positions(samples: Samples | None) -> list[str]:
    """Note a density that is not that of atoms at these positions.

    Parameters
    ----------
    samples
        Of the total density, from :func:`rhosight.density.neighbours.sample_free_atoms`.

    Returns
    -------
    list of str
        Notes; empty if the density follows that of superposed free atoms, or without samples.
    """
    if samples is None:
        return []
    is_outside = samples.nearest > _OUTSIDE
    if is_outside.sum() < _FEWEST_POINTS:
        return []
    ours, free = (
        np.log(np.maximum(density[is_outside], 0) + _SMALL)
        for density in (samples.values, samples.reference)
    )
    spread = float((ours - free).std())
    if spread < _HOMOGENEOUS or not (ours.std() and free.std()):
        return []
    correlation = float(np.corrcoef(ours, free)[0, 1])
    if spread < _UNLIKE and correlation > _UNRELATED:
        return []
    return [
        "the density between the atoms is not that of these atoms at these positions (its "
        f"correlation with free atoms is {correlation:.2f}): do structure and density have the "
        "same origin and order of atoms?"
    ]
