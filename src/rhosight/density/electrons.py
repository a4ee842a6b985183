"""Units of densities, and a check of the assumed unit by the number of electrons.

No file of a charge density states its unit, but the integral over the cell reveals it: it is the
number of electrons of the calculation, a whole number in a neutral cell. This number depends on the
pseudo-potentials, which the file does not name either. It is at most the sum of the atomic numbers,
and about the number of valence electrons or more.
"""

from __future__ import annotations

from typing import Literal, get_args

from pymatgen.core import DummySpecies, Element, Species, Structure

from ..errors import RhosightError
from .charge_density import ChargeDensity
from .elements import count_valence_electrons

Unit = Literal["e", "e/angstrom3", "e/bohr3"]
"""``e``: electrons per cell, that is values times the cell volume, as in a CHGCAR."""

UNITS: tuple[Unit, ...] = get_args(Unit)

BOHR = 0.529177210903
"""Å; CODATA 2018, doi:10.1103/RevModPhys.93.025010."""

# A density contains at least this fraction of the valence electrons: pseudo-densities and densities
# of a few bands contain fewer than all
LEAST_FRACTION = 0.5
# More electrons than protons: a charged cell, or the coarse integral over sharp cores
EXCESS = 1.02
# Density between the atoms over that of free atoms. The bundled densities have medians of 0.6 to
# 1.4 and 95 % quantiles of 1.0 to 1.5; another unit changes them by a factor of 6.75 or more.
MOST_BETWEEN, LEAST_BETWEEN = 2.4, 0.4
# Share of the least number of electrons that is enough if the density between the atoms is right:
# that of NiH in GPAW, where most d electrons are near the nuclei, has 0.91 of it
_FEW = 0.85
# More electrons than this over all that the atoms have are a damaged value
_ABSURD = 3.0
# Electrons of the shells that pseudo-potentials may keep: p, s and p, d, p and d, s, p and d
_SHELLS = (0, 6, 8, 10, 16, 18)
# Largest distance of a neutral cell's integral from a whole number
WHOLE = 0.01


def per_cubic_angstrom(unit: Unit, volume: float) -> float:
    """Return the factor from a unit to e/Å³, in a cell of ``volume`` Å³."""
    return {"e": 1 / volume, "e/angstrom3": 1.0, "e/bohr3": BOHR**-3}[unit]


def estimate_electrons(structure: Structure) -> tuple[float, float]:
    """Return bounds on the number of electrons in the density of a cell.

    Returns
    -------
    tuple of float
        Half the valence electrons (of the group; the s electrons alone behind a closed d or f
        shell), and all electrons plus 2 %.
    """
    amounts = [(_get_element(species), n) for species, n in structure.composition.items()]
    least = sum(count_valence_electrons(element) * n for element, n in amounts)
    most = sum(element.Z * n for element, n in amounts)
    return LEAST_FRACTION * least, EXCESS * most


def is_possible_count(structure: Structure, electrons: int) -> bool:
    """Return whether pseudo-potentials leave so many electrons in a neutral cell.

    Those of an element leave its valence electrons, and maybe closed shells below them.
    """
    counts = {0}
    for species, amount in structure.composition.items():
        element = _get_element(species)
        if element.is_lanthanoid or element.is_actinoid:
            return True  # any number of f electrons
        own = count_valence_electrons(element)
        shells = (*_SHELLS, 2) if element.row == 2 else _SHELLS
        counts = {n + round(amount) * (own + shell) for n in counts for shell in shells}
    return electrons in counts


def check_electron_count(
    density: ChargeDensity,
    unit: Unit,
    expected: float | None = None,
    sure: bool = False,
    between: tuple[float, float] | None = None,
) -> list[str]:
    """Compare the integral of a density with the number of electrons.

    The density is ``total`` or, if there is none, ``difference``. With ``expected`` the integral
    must be within 2 % of it. Without, it must be within :func:`estimate_electrons`, a wide range
    for heavy elements: an error of (Å/Bohr)³ = 6.75 stays within it for most elements beyond the
    third row. There the density between the atoms decides (``between``). Where it is not known, the
    integral is noted if it is a whole number of electrons in another unit and not in this one.
    Smooth pseudo-densities such as those of PAW contain no whole number of electrons; about three
    in a hundred of them are noted by chance.

    Parameters
    ----------
    density
        As read in ``unit``.
    unit
        The assumed unit.
    expected
        Electrons in the cell, if known (the sum of the atoms' ZVAL in VASP).
    sure
        Whether the unit is certain; then the check never raises.
    between
        Density between the atoms over that of free atoms, median and upper quantile, from
        :func:`rhosight.density.neighbours.compare_with_free_atoms`.

    Returns
    -------
    list of str
        Notes for ``provenance["notes"]``; empty if all is as expected.

    Raises
    ------
    RhosightError
        If the integral of ``total`` is out of bounds and another unit would bring it within them;
        the message names the factor and the unit to set. If ``between`` is implausible in all
        units.
    """
    least, most = estimate_electrons(density.structure)
    if "total" not in density.grids:
        if "difference" in density.grids:
            return _check_difference(density, least)
        return _check_spin(density, most)
    return _check_total(density, unit, (least, most), expected, sure, between)


def _check_total(
    density: ChargeDensity,
    unit: Unit,
    bounds: tuple[float, float],
    expected: float | None,
    sure: bool,
    between: tuple[float, float] | None,
) -> list[str]:
    """Return the notes of :func:`check_electron_count` on `total`."""
    least, most = bounds
    if expected is not None:
        least, most = expected / EXCESS, expected * EXCESS
    electrons = density.integral("total")
    few = least if between is None or expected is not None else _FEW * least
    in_others = _convert_to_other_units(electrons, unit, density.structure.volume)
    fitting = {
        other: n
        for other, n in in_others.items()
        if few <= n <= most and is_plausible(between, n / electrons)
    }
    if least <= electrons <= most and (between is None or expected is not None):
        whole = [u for u, n in fitting.items() if _is_whole(n) and not _is_whole(electrons)]
        if expected is None and whole:
            return [
                f"{electrons:.3f} electrons read in {unit}, a whole number in {whole[0]} "
                f"({fitting[whole[0]]:.3f}): check the unit"
            ]
        return []
    if few <= electrons <= most and is_plausible(between):
        return []
    note = (
        f"{electrons:.4g} electrons in the cell, read in {unit}; expected are {least:.4g} to "
        f"{most:.4g}"
    )
    if least <= electrons <= most and between is not None:
        note += f", but between the atoms it is {between[0]:.3g} times the density of free atoms"
    if fitting and not sure:
        raise _make_unit_error(density.name, note, unit, electrons, fitting)
    if between is not None and expected is None and not (sure or is_plausible(between)):
        raise RhosightError(
            f"{density.name}: not the charge density: {electrons:.4g} electrons in the cell, "
            f"{between[0]:.3g} times the density of free atoms between the atoms, and no other "
            "unit makes it plausible; an orbital, a localisation function, a potential or the "
            "density of some bands looks like this; give the file with the total charge density"
        )
    if expected is None and electrons > _ABSURD * most:
        raise RhosightError(f"{density.name}: {note}; a value is damaged, or the unit is another")
    return [note]


def _make_unit_error(
    name: str, note: str, unit: Unit, electrons: float, fitting: dict[Unit, float]
) -> RhosightError:
    # of two that fit, the one whose integral is nearest a whole number
    other = min(fitting, key=lambda u: abs(fitting[u] - round(fitting[u])))
    return RhosightError(
        f"{name}: {note}; with unit={other!r} (a factor of {fitting[other] / electrons:.4g}) there "
        f"are {fitting[other]:.4g}; set unit={other!r} (--unit {other}) if that is right, "
        f"unit={unit!r} if not"
    )


def _convert_to_other_units(electrons: float, unit: Unit, volume: float) -> dict[Unit, float]:
    """Return the number of electrons if the file were in each of the other units."""
    factor = per_cubic_angstrom(unit, volume)
    return {
        other: electrons * per_cubic_angstrom(other, volume) / factor
        for other in UNITS
        if other != unit
    }


def _check_difference(density: ChargeDensity, least: float) -> list[str]:
    """Note a deformation density that contains electrons."""
    electrons = density.integral("difference")
    if abs(electrons) < LEAST_FRACTION * least:
        return []
    return [
        f"the difference contains {electrons:.4g} electrons instead of about none: is it a total "
        "density?"
    ]


def _check_spin(density: ChargeDensity, most: float) -> list[str]:
    """Note a spin density of more electrons than the atoms have."""
    electrons = density.integral("spin")
    if abs(electrons) < most:
        return []
    return [
        f"the spin density contains {electrons:.4g} electrons, but the atoms have {most:.4g}: is a "
        "value damaged, or the unit another?"
    ]


def is_plausible(between: tuple[float, float] | None, factor: float = 1.0) -> bool:
    """Return whether a density times a factor is plausible between atoms."""
    if between is None:
        return True
    median, upper = between
    return median * factor < MOST_BETWEEN and upper * factor > LEAST_BETWEEN


def _is_whole(electrons: float) -> bool:
    return electrons >= 1 and abs(electrons - round(electrons)) < WHOLE


def _get_element(species: Element | Species | DummySpecies) -> Element:
    return species if isinstance(species, Element) else species.element
