"""Blocks of energies and potentials as functionals of the density."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .crystal import COULOMB, Crystal, free_atoms
from .quadrature import Fields, Sampler, Shells

HBAR2_M = 7.61996423
"""eV Å²; ħ²/m (CODATA 2018)."""

HARTREE, BOHR = 27.211386, 0.529177211
"""eV and Å."""

FLOOR = 1e-4
"""e/Å³; the least density that counts where it enters a power or logarithm: grids have ripples of
that size. Potentials divide by the density and start at ten times that."""

THOMAS_FERMI = 0.3 * (3 * np.pi**2) ** (2 / 3) * HBAR2_M
"""eV Å²; the kinetic energy density of a uniform electron gas is this times n^(5/3)."""

EXCHANGE = -0.75 * (3 / np.pi) ** (1 / 3) * COULOMB
"""eV Å; and its exchange energy density this times n^(4/3) (Dirac)."""

CHACHIYO = (np.log(2) - 1) / (2 * np.pi**2) * HARTREE, 20.4562557
"""a (eV) and b of the correlation energy a ln(1 + b/rₛ + b/rₛ²) an electron, without spin
polarisation: Chachiyo, J. Chem. Phys. 145, 021101 (2016), doi:10.1063/1.4958669."""

POWERS = (0, 1, 2, 4)
"""Averages outside the cores are weighted by n to minus these."""


def energies(
    crystal: Crystal, shells: list[Shells], fields: list[Fields], sampler: Sampler
) -> dict[str, float]:
    """Energies, eV per atom, and again ``_per_volume``, eV/Å³; ``_outside`` counts what lies
    outside the cores alone.

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
        result[f"{name}_change"] = _per_atom(change, shells)
        result[f"{name}_change_outside"] = _per_atom(_times(change, out), shells)
        result[f"{name}_outside"] = _per_atom(_times(after, out), shells)
        alone = [s.site.count * (s.volume * functional(s.own)).sum() for s in shells]
        together = _per_atom([functional(n) for n in valence], shells)
        result[f"{name}_overlap"] = together - float(sum(alone)) / crystal.n_atoms
    slopes = [HBAR2_M / 8 * f.gradient2 / n for f, n in zip(fields, total, strict=True)]
    result["weizsaecker_outside"] = _per_atom(_times(slopes, out), shells)
    result["hartree_difference"] = sampler.self_energy / crystal.n_atoms
    moved = [f.difference for f in fields]
    in_field = _times(moved, [s.potential for s in shells])
    result["difference_in_free_atoms"] = _per_atom(in_field, shells)
    result["difference_in_free_atoms_outside"] = _per_atom(_times(in_field, out), shells)
    result["difference_square"] = _per_atom([d**2 for d in moved], shells)
    result["difference_abs"] = _per_atom([np.abs(d) for d in moved], shells)
    result["difference_abs_outside"] = _per_atom(_times([np.abs(d) for d in moved], out), shells)
    return result | {f"{k}_per_volume": value / crystal.volume for k, value in result.items()}


def potentials(crystal: Crystal, shells: list[Shells], fields: list[Fields]) -> dict[str, float]:
    """What an electron between the atoms feels, eV, measured from the cell's average electrostatic
    potential as a plane-wave code's Fermi energy is.

    - ``inner_potential``: average potential of the free atoms relative to vacuum, from ∫ r² n
      (Bethe, Ann. Phys. 392, 55 (1928), doi:10.1002/andp.19283921704)
    - ``electrons_per_volume`` (e/Å³, valence of the free atoms), ``fermi_free``: Fermi energy of as
      many free electrons
    - averages outside the cores, weighted by the density to the power 0, −1, −2, −4 (``_p0`` …):
      ``free`` atoms' electrostatic potential, ``hartree`` potential of Δn, ``electrostatic``: both;
      ``exchange``: LDA exchange and correlation; ``effective``: all these; ``thomas_fermi`` and
      ``weizsaecker``: kinetic potentials; ``chemical``: effective + Thomas-Fermi + ⅑ Weizsäcker,
      which the orbital-free theory makes constant at the Fermi energy (Kirzhnits' gradient
      expansion), and ``chemical_full`` with all of Weizsäcker
    """
    atoms = [(s.site.count / crystal.n_atoms, free_atoms()[s.site.symbol]) for s in shells]
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
    """Energy density (eV/Å³) and potential (eV) of exchange and correlation in the local density
    approximation; ``density`` in e/Å³, at least :data:`FLOOR`.
    """
    n = np.maximum(density, FLOOR)
    a, b = CHACHIYO
    radius = (3 / (4 * np.pi * n)) ** (1 / 3) / BOHR
    inner = 1 + b / radius + b / radius**2
    energy = a * np.log(inner)
    slope = -a * (b / radius**2 + 2 * b / radius**3) / inner
    root = np.cbrt(n)
    return n * (EXCHANGE * root + energy), 4 / 3 * EXCHANGE * root + energy - radius / 3 * slope


def _per_atom(values: list[np.ndarray], shells: list[Shells]) -> float:
    """∫ over the cell, per atom."""
    parts = [s.site.count * (s.weight * x).sum() for x, s in zip(values, shells, strict=True)]
    return float(sum(parts)) / sum(s.site.count for s in shells)


def _times(one: list[np.ndarray], other: list[np.ndarray]) -> list[np.ndarray]:
    return [a * b for a, b in zip(one, other, strict=True)]
