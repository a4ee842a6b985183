"""Blocks of the lattice and of the surroundings of atoms, for any symmetry."""

from __future__ import annotations

import numpy as np
from scipy.special import eval_legendre

from ...density.crystals import MP_ANGLE_TOLERANCE, MP_SYMPREC, find_symmetry
from ...density.elements import covalent_radius, electronegativity
from .crystal import Crystal
from .pairs import DECAY, bond_weight
from .sites import REACH

SYSTEMS = (
    *("triclinic", "monoclinic", "orthorhombic", "tetragonal"),
    *("rhombohedral", "hexagonal", "cubic"),
)
"""Lattice systems."""

CENTRINGS = ("P", "S", "I", "F", "R")
"""Centrings of the lattice; ``S`` for A, B and C."""

RATIOS = np.arange(0.8, 2.01, 0.1)
"""Distances over sums of covalent radii at which neighbours are counted."""

SPACINGS = np.arange(0.7, 2.21, 0.1)
"""Distances over the cube root of the volume per atom at which neighbours are counted."""

WIDTH = 0.06
"""Width of the Gaussians of the counts, in the unit of the distances."""

ORDERS = (1, 2, 3, 4, 6, 8)
"""Orders of Legendre polynomials over pairs of bonds of an atom."""

ACCURATE = 10
"""Digits of squares: their root would turn rounding errors of 0 into numbers."""

BONDED = (1.2, 1.4)
"""Distances over sums of covalent radii up to which atoms are connected."""

ORDERS_OF_GROUPS = {
    **{"1": 1, "-1": 2, "2": 2, "m": 2, "2/m": 4, "222": 4, "mm2": 4, "mmm": 8},
    **{"4": 4, "-4": 4, "4/m": 8, "422": 8, "4mm": 8, "-42m": 8, "-4m2": 8, "4/mmm": 16},
    **{"3": 3, "-3": 6, "32": 6, "3m": 6, "-3m": 12},
    **{"6": 6, "-6": 6, "6/m": 12, "622": 12, "6mm": 12, "-62m": 12, "-6m2": 12, "6/mmm": 24},
    **{"23": 12, "m-3": 24, "432": 24, "-43m": 24, "m-3m": 48},
}
"""Point group → number of its operations."""

WITH_INVERSION = (
    *("-1", "2/m", "mmm", "4/m", "4/mmm", "-3", "-3m", "6/m", "6/mmm", "m-3", "m-3m"),
)
"""Centrosymmetric point groups."""

_LAST = (2, 15, 74, 142, 167, 194, 230)  # last space group of each lattice system


def name_system(number: int, international: str) -> str:
    """Return the lattice system of a space group, from its number and symbol."""
    place = next(i for i, last in enumerate(_LAST) if number <= last)
    if SYSTEMS[place] == "rhombohedral" and international[0] != "R":
        return "hexagonal"
    return SYSTEMS[place]


def lattice(crystal: Crystal) -> dict[str, float]:
    """Compute the symmetry of the lattice as numbers.

    One column for each of :data:`SYSTEMS` and :data:`CENTRINGS`; ``order``: the logarithm of the
    number of operations of the point group; ``inversion``: 1 for a centrosymmetric crystal;
    ``atoms``: the logarithm of the number of atoms in the primitive cell.
    """
    structure = crystal.structure
    numbers = [site.specie.Z for site in structure]
    data = find_symmetry(structure, numbers, MP_SYMPREC, MP_ANGLE_TOLERANCE)
    system, centring, order, inversion, atoms = "triclinic", "P", 1, False, len(structure)
    if data is not None:
        system = name_system(data.number, data.international)
        centring = data.international[0]
        # a supercell has fewer rotations than its crystal: the point group is that of the crystal
        order, inversion = ORDERS_OF_GROUPS[data.pointgroup], data.pointgroup in WITH_INVERSION
        atoms = int(max(data.mapping_to_primitive)) + 1
    centring = "S" if centring in "ABC" else centring
    result = {name: float(name == system) for name in SYSTEMS}
    result |= {f"centring_{name}": float(name == centring) for name in CENTRINGS}
    return result | {
        "order": float(np.log(order)),
        "inversion": float(inversion),
        "atoms": float(np.log(atoms)),
    }


def environments(crystal: Crystal) -> dict[str, float]:
    """Compute the surroundings of the atoms.

    - ``near…``, ``polar…``: neighbours per atom at :data:`RATIOS`, and weighted by the difference
      in electronegativity, as logarithms; ``spaced…``: at :data:`SPACINGS`
    - ``angles{l}_mean``, ``_std``: the bond-order parameter of order l of an atom's bonds
      (Steinhardt et al., Phys. Rev. B 28, 784 (1983), doi:10.1103/PhysRevB.28.784), over atoms
    - ``tensor1``, ``tensor2``: the smallest and the middle eigenvalue of the mean of u uᵀ over the
      directions u of bonds, weighted by their nearness: 1/3 in an isotropic crystal, and a small
      one where layers are far apart
    - ``dimension1.2``, ``dimension1.4``: in how many directions the atoms connected up to that
      distance extend, mean over atoms: 2 for layers, 0 for molecules
    """
    structure, count = crystal.structure, crystal.n_atoms
    scale = crystal.volume ** (1 / 3)
    first, second, images, distance = structure.get_neighbor_list(REACH * scale)
    symbols = [site.specie.symbol for site in structure]
    radii = np.array([covalent_radius(symbol) for symbol in symbols])
    chi = np.array([electronegativity(symbol) for symbol in symbols])
    ratio = distance / (radii[first] + radii[second])
    polar = np.abs(chi[first] - chi[second])
    result = {
        **_count(ratio, np.ones_like(ratio), RATIOS, count, "near"),
        **_count(ratio, polar, RATIOS, count, "polar"),
        **_count(distance / scale, np.ones_like(ratio), SPACINGS, count, "spaced"),
    }
    cartesian = structure.frac_coords @ structure.lattice.matrix
    vectors = cartesian[second] + images @ structure.lattice.matrix - cartesian[first]
    directions = vectors / distance[:, None]
    near = np.exp(-ratio / DECAY)
    tensor = np.einsum("n,ni,nj->ij", near, directions, directions) / near.sum()
    lowest = np.linalg.eigvalsh(tensor)
    result |= {"tensor1": lowest[0], "tensor2": lowest[1]}
    result |= _describe_angles(crystal, first, directions, ratio)
    for limit in BONDED:
        bonded = ratio < limit
        edges = first[bonded], second[bonded], images[bonded]
        result[f"dimension{limit}"] = find_dimensions(count, *edges).mean()
    return {name: float(value) for name, value in result.items()}


def _count(
    values: np.ndarray, weights: np.ndarray, places: np.ndarray, atoms: int, name: str
) -> dict[str, float]:
    """Count neighbours per atom about some distances, as log(1 + count)."""
    gaussians = np.exp(-(((values[:, None] - places) / WIDTH) ** 2) / 2)
    counts = np.log1p(weights @ gaussians / atoms)
    return {f"{name}{place:.1f}": float(c) for place, c in zip(places, counts, strict=True)}


def _describe_angles(
    crystal: Crystal, first: np.ndarray, directions: np.ndarray, ratio: np.ndarray
) -> dict[str, float]:
    rows = []
    for site in crystal.sites:
        own = np.flatnonzero(first == site.index)
        weights = bond_weight(ratio[own])
        if weights.sum() < 1e-6:  # no bonds: the nearest neighbours
            weights = np.exp(-(ratio[own] - ratio[own].min()) / DECAY)
        kept = weights > 1e-3
        weights, vectors = weights[kept] / weights[kept].sum(), directions[own[kept]]
        cosines = np.clip(vectors @ vectors.T, -1, 1)
        squares = [weights @ eval_legendre(order, cosines) @ weights for order in ORDERS]
        rows.append(np.sqrt(np.maximum(np.round(squares, ACCURATE), 0)))
    values = np.array(rows)
    mean = crystal.shares @ values
    spread = np.sqrt(np.round(crystal.shares @ (values - mean) ** 2, ACCURATE))
    result = {f"angles{n}_mean": float(v) for n, v in zip(ORDERS, mean, strict=True)}
    return result | {f"angles{n}_std": float(v) for n, v in zip(ORDERS, spread, strict=True)}


def find_dimensions(
    count: int, first: np.ndarray, second: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """Return in how many directions connected atoms extend, shape (count,).

    Parameters
    ----------
    count
        Number of atoms in the cell.
    first, second, images
        Connections: an atom, another, and the lattice vector of the other's cell, (n,), (n, 3).
    """
    dimensions = np.zeros(count)
    place: dict[int, np.ndarray] = {}
    others: list[list[int]] = [[] for _ in range(count)]
    for number, atom in enumerate(first):
        others[atom].append(number)
    for start in range(count):
        if start in place:
            continue
        place[start] = np.zeros(3)
        queue, loops = [start], [np.zeros(3)]
        for atom in queue:
            for edge in others[atom]:
                there = place[atom] + images[edge]
                other = int(second[edge])
                if other not in place:
                    place[other] = there
                    queue.append(other)
                else:
                    loops.append(there - place[other])
        rank = np.linalg.matrix_rank(np.unique(loops, axis=0))
        dimensions[queue] = rank
    return dimensions
