"""`difference` from two files of one calculation: its density, and that of superposed atoms."""

from __future__ import annotations

import numpy as np

from ..errors import RhosightError
from .charge_density import ChargeDensity, check_same_crystal, notes_of
from .electrons import electron_count_check
from .vasp import ALL_ELECTRON


def difference_of(
    scf: ChargeDensity, reference: ChargeDensity, name: str | None = None
) -> ChargeDensity:
    """The deformation density: ``total`` of one file minus ``total`` of another, e/Å³.

    With VASP these are AECCAR2, the self-consistent valence density, and AECCAR1, the superposition
    of the atoms' valence densities; both all-electron, written with ``LAECHG = .TRUE.``
    (https://vasp.at/wiki/LAECHG). A CHGCAR is not the one that AECCAR1 belongs to: near the nuclei
    it holds another density than AECCAR2, and their difference would be that of the two
    descriptions, not of bonding.

    Parameters
    ----------
    scf
        The density of the converged calculation.
    reference
        The superposition of free atoms: same cell, same atoms, same grid, same description.
    name
        Of the result; by default that of ``scf``.

    Returns
    -------
    ChargeDensity
        ``difference`` alone. Its provenance is that of ``scf``, with both files as the source.

    Raises
    ------
    RhosightError
        If the two differ in cell, atoms or grid, or one is all-electron and the other not, or they
        are not AECCAR2 and AECCAR1 in this order.
    """
    if scf.shape != reference.shape:
        grids = (("×".join(map(str, shape))) for shape in (scf.shape, reference.shape))
        raise RhosightError(
            f"{reference.name}: its grid is not that of {scf.name} ({' and '.join(grids)}); give "
            "two files of one calculation"
        )
    check_same_crystal(scf, reference)
    _check_same_description(scf, reference)
    source = {"source": f"{_source(scf)} − {_source(reference)}"}
    described = scf.provenance.get("density")
    if described:
        source["density"] = "all-electron valence density minus that of superposed atoms"
    provenance = {**scf.provenance, **source, **notes_of(scf, reference)}
    grid = np.asarray(scf.grid("total"), dtype=float) - reference.grid("total")
    return ChargeDensity(scf.structure, {"difference": grid}, name or scf.name, provenance)


def with_difference(density: ChargeDensity, difference: ChargeDensity) -> ChargeDensity:
    """A density with the difference of another file of the same calculation.

    Raises
    ------
    RhosightError
        If the two do not belong together (see :meth:`ChargeDensity.merged`), or what is called a
        difference holds electrons.
    """
    if notes := electron_count_check(difference, "e"):
        raise RhosightError(f"{difference.name}: {notes[0]} give the file with the difference")
    return density.merged(difference)


def _source(density: ChargeDensity) -> str:
    return str(density.provenance.get("source", density.name))


def _check_same_description(scf: ChargeDensity, reference: ChargeDensity) -> None:
    first, second = (d.provenance.get("density") for d in (scf, reference))
    if first is None and second is None:
        return  # of any code: what the two are is the caller's word
    if first != ALL_ELECTRON["AECCAR2"] or second != ALL_ELECTRON["AECCAR1"]:
        raise RhosightError(
            f"{scf.name} and {reference.name}: a difference of all-electron densities is AECCAR2 "
            f"minus AECCAR1, not {first or 'another density'} minus {second or 'another density'}"
        )
