"""Blocks of the density: over the volume, about sites, along bonds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pymatgen.analysis.ewald import EwaldSummation

from ...density.elements import covalent_radius, electronegativity
from ...density.free_atoms import load_free_atoms
from .crystal import Crystal
from .energies import FLOOR, HBAR2_M, THOMAS_FERMI, exchange_correlation
from .pairs import bond_weight
from .quadrature import Fields, Sampler, Shells

PERCENTS = (1, 5, 10, 25, 50, 75, 90)
"""Quantiles outside the cores; those of the densest tenth depend on the radius of a core."""

RADII = (0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.4)
"""Å; radii of the spheres about the sites."""

LINE = np.linspace(0.25, 0.75, 11)
"""Positions on the line between two atoms at which the density is evaluated."""

CURVE = 0.1
"""Å; step of the second difference along a bond."""


def outside(crystal: Crystal, shells: list[Shells], fields: list[Fields]) -> dict[str, float]:
    """Compute distributions over the volume outside the cores.

    Quantiles (``_q1`` …), ``_mean`` and ``_std`` of ``total``, ``difference`` (e/Å³), ``laplacian``
    (e/Å⁵), ``reduced_gradient`` (no unit), ``elf``: the electron localisation function with the
    kinetic energy's gradient expansion (Tsirelson and Stash, Chem. Phys. Lett. 351, 142 (2002),
    doi:10.1016/S0009-2614(01)01361-6), ``log_total``: of the density in e/Å³; and
    ``share_outside``, the fraction of the volume.
    """
    n, gradient2, reduced = _compute_gradients(fields)
    laplacian = _flatten([f.laplacian for f in fields])
    uniform = THOMAS_FERMI * n ** (5 / 3)
    kinetic = uniform + HBAR2_M * (gradient2 / (72 * n) + laplacian / 12)
    pauli = (kinetic - HBAR2_M / 8 * gradient2 / n) / uniform
    functions = {
        "total": n,
        "log_total": np.log(n),
        "difference": _flatten([f.difference for f in fields]),
        "reduced_gradient": reduced,
        "laplacian": laplacian,
        "elf": 1 / (1 + pauli**2),
    }
    weights = _flatten([s.site.count * s.weight * s.outside for s in shells])
    result = {"share_outside": float(weights.sum() / crystal.structure.volume)}
    weights = weights / weights.sum()
    for name, values in functions.items():
        if name != "log_total":  # its quantiles are redundant with those of the density
            result |= _compute_quantiles(name, values, weights, PERCENTS)
        mean = weights @ values
        result[f"{name}_mean"] = float(mean)
        result[f"{name}_std"] = float(np.sqrt(weights @ (values - mean) ** 2))
    return result


def interstitial(crystal: Crystal, shells: list[Shells], fields: list[Fields]) -> dict[str, float]:
    """Compute functions of `total` between the atoms on which codes agree.

    No core dominates these functions. Over the volume outside the cores: quantiles ``total_q1`` to
    ``_q75`` and ``total_mean`` of the density (e/Å³), mean and standard deviation of ``log_total``,
    quartiles of the ``reduced_gradient`` (no unit); ``thomas_fermi`` and ``exchange`` (LDA, with
    correlation): energies of the electron gas there, eV per atom, and again ``_per_volume``, eV/Å³.

    For eight crystals from Quantum ESPRESSO, whose pseudo-densities have other cores, these columns
    differ from GPAW's by 0.2 standard deviations over materials, those of ``outside`` by 1.8, and
    those of ``total``, which include the cores, by 2.8 (``benchmarks/other_code.py``).
    """
    n, _, reduced = _compute_gradients(fields)
    volumes = _flatten([s.site.count * s.weight * s.outside for s in shells])
    weights = volumes / volumes.sum()
    log_mean = weights @ np.log(n)
    result = {
        **_compute_quantiles("total", n, weights, PERCENTS[:-1]),
        "total_mean": weights @ n,
        "log_total_mean": log_mean,
        "log_total_std": np.sqrt(weights @ (np.log(n) - log_mean) ** 2),
        **_compute_quantiles("reduced_gradient", reduced, weights, (25, 50, 75)),
    }
    for name, density in (
        ("thomas_fermi", THOMAS_FERMI * n ** (5 / 3)),
        ("exchange", exchange_correlation(n)[0]),
    ):
        result[name] = volumes @ density / crystal.n_atoms
        result[f"{name}_per_volume"] = result[name] / crystal.volume
    return {name: float(value) for name, value in result.items()}


def radial(crystal: Crystal, shells: list[Shells], fields: list[Fields]) -> dict[str, float]:
    """Compute the density on spheres about the sites, e/Å³.

    ``total_at_R`` and ``difference_at_R`` are averages over the sphere of radius R (Å), summarised
    by :meth:`Crystal.summarise`; ``_spread_R`` is the standard deviation on the sphere, mean over
    atoms.
    """
    result: dict[str, float] = {}
    for kind in ("total", "difference"):
        means, spreads = [], []
        for shell, field in zip(shells, fields, strict=True):
            weights = shell.volume[0] / shell.volume[0].sum()
            values = getattr(field, kind)
            mean = values @ weights
            spread = np.sqrt((values - mean[:, None]) ** 2 @ weights)
            means.append(np.interp(RADII, shell.radii, mean))
            spreads.append(np.interp(RADII, shell.radii, spread))
        for k, radius in enumerate(RADII):
            result |= crystal.summarise([m[k] for m in means], f"{kind}_at_{radius}")
            spread = crystal.shares @ [s[k] for s in spreads]
            result[f"{kind}_spread_{radius}"] = float(spread)
    return result


def charges(crystal: Crystal, shells: list[Shells], fields: list[Fields]) -> dict[str, float]:
    """Compute properties of stockholder atoms (Hirshfeld, doi:10.1007/BF00549096).

    All but the first, second and last are summarised by :meth:`Crystal.summarise`.

    - ``charge_defect``: electrons missing per atom, by which a pseudo-density differs from a
      neutral one; ``charge_rms``
    - ``charge``: net charge minus the defect, electrons (its mean is zero and not listed)
    - ``volume``: Å³; ``volume_ratio``: ∫ r³ n relative to the free atom's
    - ``hartree_at``: potential of Δn near the nucleus, ``free_at``: of the other free atoms, eV
    - ``difference_outside``: electrons gained outside the cores
    - ``madelung``: energy of the net charges as points, eV/atom
    """
    pairs = list(zip(shells, fields, strict=True))
    lost = np.array([-(s.weight * f.difference).sum() for s, f in pairs])
    defect = float(crystal.shares @ lost)
    charge = lost - defect
    free, now, field_of_others = [], [], []
    for shell, field in pairs:
        cubes = shell.radii[:, None] ** 3
        free.append((shell.volume * shell.own * cubes).sum())
        valence = np.maximum(field.total - shell.cores, 0)
        now.append((shell.weight * valence * cubes).sum())
        atom = load_free_atoms().atoms[shell.site.symbol]
        own = np.interp(shell.radii[1], atom.radii, atom.potential)
        field_of_others.append(shell.potential[1].mean() - own)
    result = {
        "charge_defect": defect,
        "charge_rms": float(np.sqrt(crystal.shares @ charge**2)),
    }
    ranked = {
        "charge": charge,
        "volume": np.array([s.weight.sum() for s in shells]),
        "volume_ratio": np.array(now) / np.array(free),
        "hartree_at": np.array([f.hartree[0].mean() for f in fields]),
        "free_at": np.array(field_of_others),
        "difference_outside": np.array(
            [(s.weight * s.outside * f.difference).sum() for s, f in pairs]
        ),
    }
    for name, values in ranked.items():
        result |= crystal.summarise(values, name)
    del result["charge_mean"]
    result["madelung"] = _compute_madelung(crystal, charge)
    return result


def bonds(crystal: Crystal, sampler: Sampler) -> dict[str, float]:
    """Compute the density between neighbours, averaged over bonds.

    Bonds are weighted by :func:`.pairs.bond_weight`, and for ``_strong`` also by the density at the
    bond's point, which divides the bond in the ratio of the covalent radii.

    - at that point: ``density``, ``difference`` (e/Å³), ``laplacian``, ``along`` and ``across`` the
      bond: second derivatives (e/Å⁵), ``hartree``: potential of Δn (eV)
    - on the middle half of the line: ``minimum`` of the density, ``difference_max``, ``_mean``
    - ``length`` (Å), ``ratio`` to covalent radii, ``polarity``: squared difference in
      electronegativity, ``density_polar``: times density
    - ``bonds_per_atom``; ``bonded_per_atom`` (e/Å³) and ``_per_volume``: sums of the density at the
      bonds' points; ``…_sum_per_volume``: of that quantity, per Å³
    """
    parts = [_sample_bonds(crystal, site.index, site.symbol, sampler) for site in crystal.sites]
    counts = np.concatenate(
        [np.full(len(p["weight"]), s.count) for p, s in zip(parts, crystal.sites, strict=True)]
    )
    columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    weights = counts * columns.pop("weight")
    strong = weights * np.maximum(columns["density"], 0)
    volume = crystal.structure.volume
    result = {
        "bonds_per_atom": weights.sum() / crystal.n_atoms,
        "bonded_per_volume": strong.sum() / volume,
        "bonded_per_atom": strong.sum() / crystal.n_atoms,
    }
    for name, values in columns.items():
        result[name] = weights @ values / max(weights.sum(), 1e-9)
        result[f"{name}_strong"] = strong @ values / max(strong.sum(), 1e-9)
    for name in ("density", "along", "across", "difference"):
        result[f"{name}_sum_per_volume"] = weights @ columns[name] / volume
    return {name: float(value) for name, value in result.items()}


def _sample_bonds(
    crystal: Crystal, index: int, symbol: str, sampler: Sampler
) -> dict[str, np.ndarray]:
    """Return weight and quantities of :func:`bonds`, one row per bond of an atom."""
    vectors, symbols, distance = crystal.find_neighbours(index, 6.0)
    radius = covalent_radius(symbol)
    others = np.array([covalent_radius(s) for s in symbols])
    weight = bond_weight(distance / (radius + others))
    weight[0] = 0.0  # the atom itself
    keep = weight > 1e-3
    vectors, symbols, distance = vectors[keep], symbols[keep], distance[keep]
    weight, others = weight[keep], others[keep]
    chi = np.array([electronegativity(s) for s in symbols]) - electronegativity(symbol)
    centre = crystal.structure.frac_coords[index]
    vectors = vectors @ np.linalg.inv(crystal.structure.lattice.matrix)
    place = (radius / (radius + others))[:, None]
    units = vectors / distance[:, None]
    point = centre + place * vectors
    at = sampler(point)
    ahead, behind = (sampler.total(point + sign * CURVE * units) for sign in (1, -1))
    along = (ahead + behind - 2 * at.total) / CURVE**2
    line = centre + LINE[:, None, None] * vectors
    difference = sampler.difference(line)
    return {
        "weight": weight,
        "density": at.total,
        "difference": at.difference,
        "laplacian": at.laplacian,
        "along": along,
        "across": (at.laplacian - along) / 2,
        "hartree": at.hartree,
        "minimum": sampler.total(line).min(axis=0),
        "difference_max": difference.max(axis=0),
        "difference_mean": difference.mean(axis=0),
        "length": distance,
        "ratio": distance / (radius + others),
        "polarity": chi**2,
        "density_polar": at.total * chi**2,
    }


def _compute_madelung(crystal: Crystal, charge: np.ndarray) -> float:
    """Return the energy of point charges at the inequivalent atoms, eV/atom.

    Charges are in electrons.
    """
    charged = crystal.structure.copy()
    values = np.zeros(crystal.n_atoms)
    for site, value in zip(crystal.sites, charge, strict=True):
        values[site.members] = value
    charged.add_oxidation_state_by_site(values.tolist())
    return float(EwaldSummation(charged).total_energy) / crystal.n_atoms


def _compute_quantiles(
    name: str, values: np.ndarray, weights: np.ndarray, percents: Sequence[int]
) -> dict[str, float]:
    """Return the quantiles ``name_q1`` …, for weights of sum 1."""
    order = np.argsort(values, kind="stable")
    below, ordered = np.cumsum(weights[order]), values[order]
    return {f"{name}_q{p}": float(np.interp(p / 100, below, ordered)) for p in percents}


def _compute_gradients(fields: list[Fields]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `total` (e/Å³), its squared and its reduced gradient at all points."""
    n = _flatten([np.maximum(f.total, FLOOR) for f in fields])
    gradient2 = _flatten([f.gradient2 for f in fields])
    return n, gradient2, np.sqrt(gradient2) / (2 * np.cbrt(3 * np.pi**2) * n ** (4 / 3))


def _flatten(values: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([x.ravel() for x in values])
