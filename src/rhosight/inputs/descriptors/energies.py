"""Blocks of energies and potentials as functionals of the density."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...density.free_atoms import COULOMB, load_free_atoms
from .crystal import Crystal
from .quadrature import Fields, Sampler, Shells

HBAR2_M = 7.61996423
"""eV Å²; ħ²/m (CODATA 2018)."""

HARTREE, BOHR = 27.211386, 0.529177211
"""eV and Å, with the digits of the descriptors on which the packaged models were trained."""

FLOOR = 1e-4
"""e/Å³; smallest density that enters a power or logarithm, because grids have ripples of that size.
Potentials divide by the density and start at ten times this value."""

THOMAS_FERMI = 0.3 * (3 * np.pi**2) ** (2 / 3) * HBAR2_M
"""eV Å²; factor of n^(5/3) in the kinetic energy density of a uniform electron gas."""

EXCHANGE = -0.75 * (3 / np.pi) ** (1 / 3) * COULOMB
"""eV Å; factor of n^(4/3) in its exchange energy density (Dirac)."""

CHACHIYO = (np.log(2) - 1) / (2 * np.pi**2) * HARTREE, 20.4562557
"""a (eV) and b of the correlation energy a ln(1 + b/rₛ + b/rₛ²) per electron, without spin
polarisation: Chachiyo, J. Chem. Phys. 145, 021101 (2016), doi:10.1063/1.4958669."""

POWERS = (0, 1, 2, 4)
"""Exponents p of the weights n^−p in averages outside the cores."""


def energies(
    crystal: Crystal, shells: list[Shells], fields: list[Fields], sampler: Sampler
) -> dict[str, float]:
    """Compute energies, eV per atom and ``_per_volume``, eV/Å³.

    ``_outside`` marks integrals over the volume outside the cores.

    - ``thomas_fermi``, ``exchange`` (LDA, with correlation): ``_change`` from the superposition of
      free atoms to the self-consistent density, and ``_overlap`` from free atoms apart to their
      superposition (valence)
    - ``weizsaecker_outside``: ħ²/8m ∫ |∇n|²/n
    - ``hartree_difference``: the electrostatic self-energy of Δn
    - ``difference_in_free_atoms``: that of Δn in the field of the free atoms
    - ``difference_square`` ∫ Δn² (e²/Å³) and ``difference_abs`` ∫ |Δn| (e), per atom
    """
    result: dict[str, float] = {}
    total = [np.maximum(f.total, FLOOR) for f in fields]
    free = [np.maximum(f.total - f.difference, FLOOR) for f in fields]
    valence = [np.maximum(s.own + s.others, FLOOR) for s in shells]
    out = [s.outside for s in shells]
    functionals: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "thomas_fermi": lambda n: THOMAS_FERMI * n ** (5 / 3),
        "exchange": lambda n: exchange_correlation(n)[0],
    }
    for name, functional in functionals.items():
        after = [functional(n) for n in total]
        change = [a - functional(n) for a, n in zip(after, free, strict=True)]
        result[f"{name}_change"] = _integrate_per_atom(change, shells)
        result[f"{name}_change_outside"] = _integrate_per_atom(_multiply(change, out), shells)
        result[f"{name}_outside"] = _integrate_per_atom(_multiply(after, out), shells)
        alone = [s.site.count * (s.volume * functional(s.own)).sum() for s in shells]
        together = _integrate_per_atom([functional(n) for n in valence], shells)
        result[f"{name}_overlap"] = together - float(sum(alone)) / crystal.n_atoms
    slopes = [HBAR2_M / 8 * f.gradient2 / n for f, n in zip(fields, total, strict=True)]
    result["weizsaecker_outside"] = _integrate_per_atom(_multiply(slopes, out), shells)
    result["hartree_difference"] = sampler.self_energy / crystal.n_atoms
    moved = [f.difference for f in fields]
    in_field = _multiply(moved, [s.potential for s in shells])
    result["difference_in_free_atoms"] = _integrate_per_atom(in_field, shells)
    result["difference_in_free_atoms_outside"] = _integrate_per_atom(
        _multiply(in_field, out), shells
    )
    result["difference_square"] = _integrate_per_atom([d**2 for d in moved], shells)
    result["difference_abs"] = _integrate_per_atom([np.abs(d) for d in moved], shells)
    result["difference_abs_outside"] = _integrate_per_atom(
        _multiply([np.abs(d) for d in moved], out), shells
    )
    return result | {f"{k}_per_volume": value / crystal.volume for k, value in result.items()}


def potentials(crystal: Crystal, shells: list[Shells], fields: list[Fields]) -> dict[str, float]:
    """Compute potentials of an electron between the atoms, eV.

    Like the Fermi energy of a plane-wave code, they are relative to the cell's average
    electrostatic potential.

    - ``inner_potential``: average potential of the free atoms relative to vacuum, from ∫ r² n
      (Bethe, Ann. Phys. 392, 55 (1928), doi:10.1002/andp.19283921704)
    - ``electrons_per_volume`` (e/Å³, valence of the free atoms), ``fermi_free``: Fermi energy of as
      many free electrons
    - averages outside the cores, weighted by the density to the power 0, −1, −2, −4 (``_p0`` …):
      ``free`` atoms' electrostatic potential, ``hartree`` potential of Δn, ``electrostatic``: both;
      ``exchange``: LDA exchange and correlation; ``effective``: all these; ``thomas_fermi`` and
      ``weizsaecker``: kinetic potentials; ``chemical``: effective + Thomas-Fermi + ⅑ Weizsäcker,
      which is constant at the Fermi energy in orbital-free theory (Kirzhnits' gradient
      expansion), and ``chemical_full`` with all of Weizsäcker
    """
    table = load_free_atoms().atoms
    atoms = [(s.site.count / crystal.n_atoms, table[s.site.symbol]) for s in shells]
    moment = sum(share * atom.moment for share, atom in atoms)
    mean = -2 * np.pi / 3 * COULOMB * moment / crystal.volume
    electrons = sum(share * atom.electrons for share, atom in atoms) / crystal.volume
    result = {
        "inner_potential": mean,
        "electrons_per_volume": electrons,
        "fermi_free": 0.5 * HBAR2_M * (3 * np.pi**2 * electrons) ** (2 / 3),
    }
    n = np.stack([np.maximum(f.total, 10 * FLOOR) for f in fields])
    slope = np.stack([f.gradient2 for f in fields])
    bend = np.stack([f.laplacian for f in fields])
    free = np.stack([s.potential for s in shells]) - mean
    hartree = np.stack([f.hartree for f in fields])
    exchange = exchange_correlation(n)[1]
    kinetic = 5 / 3 * THOMAS_FERMI * n ** (2 / 3)
    quantum = HBAR2_M * (slope / (8 * n**2) - bend / (4 * n))
    effective = free + hartree + exchange
    terms = {
        "electrostatic": free + hartree,
        "free": free,
        "hartree": hartree,
        "exchange": exchange,
        "thomas_fermi": kinetic,
        "weizsaecker": quantum,
        "effective": effective,
        "chemical": effective + kinetic + quantum / 9,
        "chemical_full": effective + kinetic + quantum,
    }
    outside = np.stack([s.site.count * s.weight * s.outside for s in shells])
    for power in POWERS:
        weights = outside * n**-power
        for name, values in terms.items():
            result[f"{name}_p{power}"] = float((weights * values).sum() / weights.sum())
    return result


def exchange_correlation(density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return energy density (eV/Å³) and potential (eV) of exchange and correlation.

    Local density approximation; ``density`` in e/Å³, at least :data:`FLOOR`.
    """
    n = np.maximum(density, FLOOR)
    a, b = CHACHIYO
    radius = (3 / (4 * np.pi * n)) ** (1 / 3) / BOHR
    inner = 1 + b / radius + b / radius**2
    energy = a * np.log(inner)
    slope = -a * (b / radius**2 + 2 * b / radius**3) / inner
    root = np.cbrt(n)
    return n * (EXCHANGE * root + energy), 4 / 3 * EXCHANGE * root + energy - radius / 3 * slope


def _integrate_per_atom(values: list[np.ndarray], shells: list[Shells]) -> float:
    """Integrate over the cell, per atom."""
    parts = [s.site.count * (s.weight * x).sum() for x, s in zip(values, shells, strict=True)]
    return float(sum(parts)) / sum(s.site.count for s in shells)


def _multiply(one: list[np.ndarray], other: list[np.ndarray]) -> list[np.ndarray]:
    return [a * b for a, b in zip(one, other, strict=True)]
