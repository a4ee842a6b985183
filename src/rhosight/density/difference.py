"""``difference`` from the density and the superposed atoms of one calculation."""

from __future__ import annotations

import numpy as np

from ..errors import RhosightError
from .charge_density import ChargeDensity, check_same_crystal, collect_notes
from .electrons import check_electron_count
from .vasp import ALL_ELECTRON


def compute_difference(
    scf: ChargeDensity, reference: ChargeDensity, name: str | None = None
) -> ChargeDensity:
    """Subtract ``total`` of one file from ``total`` of another, e/Å³.

    The result is the deformation density. With VASP the files are AECCAR2, the self-consistent
    valence density, and AECCAR1, the superposition of the atoms' valence densities; both are
    all-electron, written with ``LAECHG = .TRUE.`` (https://vasp.at/wiki/LAECHG). Do not subtract
    AECCAR1 from a CHGCAR: near the nuclei the CHGCAR is another density than AECCAR2, and the
    result would show the difference between the two descriptions, not the bonding.

    Parameters
    ----------
    scf
        The density of the converged calculation.
    reference
        The superposition of free atoms: same cell, same atoms, same grid, same description.
    name
        Name of the result; by default that of ``scf``.

    Returns
    -------
    ChargeDensity
        ``difference`` alone. Its provenance is that of ``scf``, with both files as the source.

    Raises
    ------
    RhosightError
        If the two differ in cell, atoms or grid, if only one is all-electron, or if they are not
        AECCAR2 and AECCAR1 in this order.
    """
    if scf.shape != reference.shape:
        grids = ("×".join(map(str, shape)) for shape in (scf.shape, reference.shape))
        raise RhosightError(
            f"{reference.name}: its grid is not that of {scf.name} ({' and '.join(grids)}); give "
            "two files of one calculation"
        )
    check_same_crystal(scf, reference)
    _check_same_description(scf, reference)
    origin = {"source": f"{_get_source(scf)} − {_get_source(reference)}"}
    if scf.provenance.get("density"):
        origin["density"] = "all-electron valence density minus that of superposed atoms"
    provenance = {**scf.provenance, **origin, **collect_notes(scf, reference)}
    grid = np.asarray(scf.grid("total"), dtype=float) - reference.grid("total")
    return ChargeDensity(scf.structure, {"difference": grid}, name or scf.name, provenance)


def add_difference(density: ChargeDensity, difference: ChargeDensity) -> ChargeDensity:
    """Return a density with the difference from another file of the same calculation.

    Raises
    ------
    RhosightError
        If the two do not belong together (see :meth:`ChargeDensity.merge`), or if the difference
        contains electrons.
    """
    if notes := check_electron_count(difference, "e"):
        raise RhosightError(f"{difference.name}: {notes[0]} Give the file with the difference")
    return density.merge(difference)


def _get_source(density: ChargeDensity) -> str:
    return str(density.provenance.get("source", density.name))


def _check_same_description(scf: ChargeDensity, reference: ChargeDensity) -> None:
    first, second = (d.provenance.get("density") for d in (scf, reference))
    if first is None and second is None:
        return  # other codes do not say what a file holds; the caller knows
    if first != ALL_ELECTRON["AECCAR2"] or second != ALL_ELECTRON["AECCAR1"]:
        raise RhosightError(
            f"{scf.name} and {reference.name}: a difference of all-electron densities is AECCAR2 "
            f"minus AECCAR1, not {first or 'another density'} minus {second or 'another density'}"
        )
