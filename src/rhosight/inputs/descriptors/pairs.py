"""Blocks that need the structure alone: sums over pairs of atoms."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.integrate import simpson
from scipy.interpolate import CubicSpline

from ...density.elements import covalent_radius, electronegativity
from ...density.free_atoms import COULOMB, load_free_atoms
from .crystal import Crystal
from .elements import own_volume

WAVES = np.linspace(0, 24, 601)
"""Å⁻¹; wave vectors of the pair functions' Fourier integrals."""

CLOSEST = 0.7
"""Å; shortest distance in the pair functions, also used for closer atoms."""

NEIGHBOURS = 7.0
"""Å; radius of the neighbours that :func:`packing` uses."""

BOND = (1.1, 1.6)
"""In sums of covalent radii: a neighbour counts fully up to the first, not from the second on."""

DECAY = 0.25
"""In sums of covalent radii: length over which the nearness of a neighbour decays by a factor e."""


def bond_weight(ratio: np.ndarray) -> np.ndarray:
    """Return the weight of neighbours as bonded, smoothly from 1 to 0.

    ``ratio`` is the distance over the sum of covalent radii.
    """
    x = np.clip((BOND[1] - ratio) / (BOND[1] - BOND[0]), 0, 1)
    return x**2 * (3 - 2 * x)


def overlap(crystal: Crystal) -> dict[str, float]:
    """Compute the interaction of frozen free atoms.

    These are the first terms of Gordon and Kim, J. Chem. Phys. 56, 3122 (1972),
    doi:10.1063/1.1677649. Sums over pairs, per atom and ``_per_volume`` (Å⁻³):

    - ``electrostatic0``: electrostatic energy of the neutral atoms, eV; ``1`` and ``2``: its
      derivatives r E′ and r² E″ under a uniform expansion, eV
    - ``overlap0`` … ``2``: likewise ∫ nₐ n_b of the valence densities, e²/Å³
    - ``electrostatic_polar``, ``overlap_polar``: weighted by the squared difference in
      electronegativity
    - ``embedding``, ``embedding_root``: density of the neighbours at an atom (e/Å³) and its
      square root, as in the embedded-atom method (Daw and Baskes, Phys. Rev. B 29, 6443 (1984),
      doi:10.1103/PhysRevB.29.6443)

    and ``electrostatic_modulus``, ``overlap_modulus``: their bulk moduli, Σ (r² E″ − 2 r E′) / 9V,
    eV/Å³ and e²/Å⁶.
    """
    names = ("electrostatic", "overlap")
    sums = {f"{name}{order}": 0.0 for name in names for order in range(3)}
    sums |= {f"{name}_polar": 0.0 for name in reversed(names)}
    sums |= {"embedding": 0.0, "embedding_root": 0.0}
    for site in crystal.sites:
        _, symbols, distance = crystal.find_neighbours(site.index, 2 * load_free_atoms().reach)
        symbols, distance = symbols[1:], np.maximum(distance[1:], CLOSEST)
        density = 0.0
        for symbol in sorted(set(symbols)):
            r = distance[symbols == symbol]
            polar = (electronegativity(symbol) - electronegativity(site.symbol)) ** 2
            pair = _make_pair_functions(site.symbol, symbol)
            for name, function in zip(names, pair, strict=True):
                orders = [float((r**k * function(r, k)).sum()) / 2 for k in range(3)]
                for k, value in enumerate(orders):
                    sums[f"{name}{k}"] += site.count * value
                sums[f"{name}_polar"] += site.count * polar * orders[0]
            atom = load_free_atoms().atoms[symbol]
            density += float(np.interp(r, atom.radii, atom.valence, right=0.0).sum())
        sums["embedding"] += site.count * density
        sums["embedding_root"] += site.count * np.sqrt(density)
    per_atom = {name: value / crystal.n_atoms for name, value in sums.items()}
    result = {f"{name}_per_atom": value for name, value in per_atom.items()}
    result |= {f"{name}_per_volume": value / crystal.volume for name, value in per_atom.items()}
    for name in names:
        force, stiffness = per_atom[f"{name}1"], per_atom[f"{name}2"]
        result[f"{name}_modulus"] = (stiffness - 2 * force) / (9 * crystal.volume)
    return result


def packing(crystal: Crystal) -> dict[str, float]:
    """Compare neighbours with covalent radii and electronegativities.

    ``packing_fraction`` of spheres of covalent radius, ``volume_ratio`` to the elements; then,
    summarised by :meth:`Crystal.summarise`:

    - ``coordination``: neighbours weighted by :func:`bond_weight`; ``nearness``: by an exponential
    - ``nearest`` (Å), ``nearest_ratio``: the nearest neighbour, the latter over covalent radii
    - ``ratio``: mean distance over covalent radii, weighted by nearness
    - ``chi``, ``chi2``, ``chi_abs``: mean difference in electronegativity to the bonded neighbours,
      its square and absolute value; ``near_chi``, ``near_chi2``: likewise, weighted by nearness
    """
    radii = np.array([covalent_radius(site.symbol) for site in crystal.sites])
    own = np.array([own_volume(site.symbol) for site in crystal.sites])
    result = {
        "packing_fraction": float(crystal.shares @ (4 / 3 * np.pi * radii**3)) / crystal.volume,
        "volume_ratio": crystal.volume / float(crystal.shares @ own),
    }
    rows: dict[str, list[float]] = {}
    for site, radius in zip(crystal.sites, radii, strict=True):
        _, symbols, distance = crystal.find_neighbours(site.index, _choose_radius(crystal))
        symbols, distance = symbols[1:], distance[1:]
        ratio = distance / (radius + np.array([covalent_radius(s) for s in symbols]))
        chi = np.array([electronegativity(s) for s in symbols]) - electronegativity(site.symbol)
        bonded, near = bond_weight(ratio), np.exp(-ratio / DECAY)
        count, nearness = bonded.sum(), near.sum()
        row = {
            "coordination": count,
            "ratio": near @ ratio / nearness,
            "nearness": nearness,
            "chi": bonded @ chi / max(count, 1e-9),
            "chi2": bonded @ chi**2 / max(count, 1e-9),
            "chi_abs": bonded @ np.abs(chi) / max(count, 1e-9),
            "near_chi": near @ chi / nearness,
            "near_chi2": near @ chi**2 / nearness,
            "nearest": distance[0],
            "nearest_ratio": ratio.min(),
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(float(value))
    for name, values in rows.items():
        result |= crystal.summarise(values, name)
    return result


def _choose_radius(crystal: Crystal) -> float:
    """Return a radius within which every atom has a neighbour or periodic image."""
    return max(NEIGHBOURS, 1.01 * min(crystal.structure.lattice.abc))


@cache
def _transform_atom(symbol: str) -> np.ndarray:
    """Return the Fourier transform of a free atom's valence, electrons over WAVES."""
    atom = load_free_atoms().atoms[symbol]
    kernel = 4 * np.pi * atom.radii**2 * np.sinc(np.outer(WAVES, atom.radii) / np.pi)
    return simpson(kernel * atom.valence, x=atom.radii)


@cache
def _make_kernel() -> tuple[np.ndarray, np.ndarray]:
    """Return distances R, Å, and the matrix of the integral over q for each.

    It integrates f(q) sin(qR)/(qR).
    """
    distances = np.linspace(CLOSEST, 2 * load_free_atoms().reach, 260)
    weights = simpson(np.eye(len(WAVES)), x=WAVES)
    return distances, np.sinc(np.outer(distances, WAVES) / np.pi) * weights


@cache
def _make_pair_functions(one: str, other: str) -> tuple[CubicSpline, CubicSpline]:
    """Return the pair functions of two free atoms over their distance, Å.

    These are the electrostatic energy (eV) and ∫ nₐ n_b (e²/Å³).
    """
    if one > other:
        return _make_pair_functions(other, one)
    distances, kernel = _make_kernel()
    a, b = _transform_atom(one), _transform_atom(other)
    # nuclei are point charges a[0], b[0]: without their 1/R the rest is smooth
    screened = kernel @ (a * b - a[0] * b - b[0] * a)
    energy = COULOMB * (a[0] * b[0] / distances + 2 / np.pi * screened)
    shared = kernel @ (a * b * WAVES**2) / (2 * np.pi**2)
    return CubicSpline(distances, energy), CubicSpline(distances, shared)
