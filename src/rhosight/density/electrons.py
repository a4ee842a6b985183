"""Units of densities, and the number of electrons that tells whether the right one was assumed.

No file of a charge density states its unit. Its integral over the cell does: it is the number of
electrons of the calculation, a whole number in a neutral cell. How many there are depends on the
pseudo-potentials, which the file does not name either; but it is at most the sum of the atomic
numbers, and about the number of valence electrons or more.
"""

from __future__ import annotations

from typing import Literal, get_args

from pymatgen.core import Element, Species, Structure

from ..errors import RhosightError
from .charge_density import ChargeDensity

Unit = Literal["e", "e/angstrom3", "e/bohr3"]
"""``e``: electrons per cell, that is values times the cell volume, as in a CHGCAR."""

UNITS: tuple[str, ...] = get_args(Unit)

BOHR = 0.529177210903
"""Å; CODATA 2018, doi:10.1103/RevModPhys.93.025010."""

# Of the valence electrons this fraction must be there at least: pseudo-densities and densities of
# a few bands hold fewer than all
LEAST_FRACTION = 0.5
# More electrons than protons: a charged cell, or the coarse integral over sharp cores
EXCESS = 1.02
# How near to a whole number the integral of a neutral cell comes
WHOLE = 0.01


def per_cubic_angstrom(unit: Unit, volume: float) -> float:
    """What values in this unit are multiplied by to give e/Å³, in a cell of ``volume`` Å³."""
    return {"e": 1 / volume, "e/angstrom3": 1.0, "e/bohr3": BOHR**-3}[unit]


def expected_electrons(structure: Structure) -> tuple[float, float]:
    """Bounds of the number of electrons in the density of a cell.

    Returns
    -------
    From half the valence electrons (of the group; the s electrons alone behind a closed d or f
    shell) to all electrons and 2 %.
    """
    amounts = {_element(species): amount for species, amount in structure.composition.items()}
    least = sum(_valence(element) * amount for element, amount in amounts.items())
    most = sum(element.Z * amount for element, amount in amounts.items())
    return LEAST_FRACTION * least, EXCESS * most


def electron_count_check(
    density: ChargeDensity,
    unit: Unit,
    expected: float | None = None,
    sure: bool = False,
) -> list[str]:
    """Hold the integral of ``total`` (or of ``difference``) against the number of electrons.

    Only the calculation knows the number of electrons that its density should hold, so that the
    check is as sharp as what it is told. With ``expected`` the integral must be within 2 % of it.
    Without, it must be within :func:`expected_electrons`, a wide range for heavy elements: a unit
    wrong by (Å/Bohr)³ = 6.75 stays within it for most elements beyond the third row. There it shows
    if the integral is a whole number of electrons in another unit and not in this one; that is
    noted. Densities that hold no whole number of electrons for good reasons (the smooth
    pseudo-densities of PAW, for one) are noted or not by chance, three in a hundred.

    Parameters
    ----------
    density
        As read in ``unit``.
    unit
        The unit that was assumed.
    expected
        Electrons in the cell, where they are known (the sum of the atoms' ZVAL in VASP).
    sure
        Whether somebody said that this is the unit: then nothing raises.

    Returns
    -------
    Notes for ``provenance["notes"]``; none if all is as expected.

    Raises
    ------
    RhosightError
        If the integral of ``total`` is out of bounds and another unit would bring it within them.
        The message names the factor and the cure.
    """
    least, most = expected_electrons(density.structure)
    if "total" not in density.grids:
        return _check_difference(density, least) if "difference" in density.grids else []
    if expected is not None:
        least, most = expected / EXCESS, expected * EXCESS
    found = density.integral("total")
    bounds = f"{least:.4g} to {most:.4g}"
    volume = density.structure.volume
    electrons_in = {
        other: found * per_cubic_angstrom(other, volume) / per_cubic_angstrom(unit, volume)
        for other in UNITS
        if other != unit
    }
    fitting = {u: n for u, n in electrons_in.items() if least <= n <= most}
    if least <= found <= most:
        better = [u for u, n in fitting.items() if _is_whole(n) and not _is_whole(found)]
        if expected is None and better:
            return [
                f"{found:.3f} electrons read in {unit}, a whole number in {better[0]} "
                f"({fitting[better[0]]:.3f}): check the unit"
            ]
        return []
    said = f"{found:.4g} electrons in the cell, read in {unit}; expected are {bounds}"
    if not fitting or sure:
        return [said]
    # of two that fit, the one whose integral is nearest a whole number
    other = min(fitting, key=lambda u: abs(fitting[u] - round(fitting[u])))
    raise RhosightError(
        f"{density.name}: {said}; with unit={other!r} (a factor of "
        f"{fitting[other] / found:.4g}) they are {fitting[other]:.4g}; if that is it, say so, and "
        f"if not, say unit={unit!r}"
    )


def _check_difference(density: ChargeDensity, least: float) -> list[str]:
    """A deformation density holds no electrons of its own."""
    found = density.integral("difference")
    if abs(found) < LEAST_FRACTION * least:
        return []
    return [f"the difference holds {found:.4g} electrons, not about none: is it a total density?"]


def _is_whole(electrons: float) -> bool:
    return electrons >= 1 and abs(electrons - round(electrons)) < WHOLE


def _element(species: Element | Species) -> Element:
    return species if isinstance(species, Element) else species.element


def _valence(element: Element) -> int:
    if element.is_lanthanoid or element.is_actinoid:
        return 3
    group = element.group
    if group > 12:
        return group - 10
    if element.Z == 2:
        return 2
    return group - 10 if group > 10 else group
