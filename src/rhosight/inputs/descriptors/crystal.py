"""A crystal for the descriptors: its inequivalent atoms and their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pymatgen.core import Structure

from ...density.crystals import find_symmetry, list_symbols
from ...density.elements import electronegativity
from ...density.free_atoms import load_free_atoms
from ...errors import RhosightError

SHARPNESS = 6.0
"""Per unit of electronegativity; how sharply :meth:`Crystal.summarise` separates the elements."""


@dataclass(frozen=True)
class Site:
    """One inequivalent atom: index, element, indices of its equivalents.

    The equivalents (``members``) include the atom itself.
    """

    index: int
    symbol: str
    members: np.ndarray

    @property
    def count(self) -> int:
        """Number of equivalent atoms in the cell."""
        return len(self.members)


@dataclass(frozen=True)
class Crystal:
    """A structure, its inequivalent atoms, and reference axes.

    The axes are Cartesian unit vectors (rows).
    """

    structure: Structure
    sites: tuple[Site, ...]
    axes: np.ndarray

    @property
    def n_atoms(self) -> int:
        """Number of atoms in the cell."""
        return len(self.structure)

    @property
    def volume(self) -> float:
        """Volume per atom, Å³."""
        return self.structure.volume / self.n_atoms

    @cached_property
    def shares(self) -> np.ndarray:
        """Fraction of all atoms that are equivalent to each site, shape (sites,)."""
        return np.array([site.count for site in self.sites]) / self.n_atoms

    def find_neighbours(
        self, index: int, radius: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return an atom and all others within ``radius`` (Å), nearest first.

        Returns
        -------
        tuple of numpy.ndarray
            Vectors from the atom (n, 3), Å; symbols (n,); distances (n,), Å.
        """
        structure = self.structure
        lattice = structure.lattice
        frac = structure.frac_coords - structure.frac_coords[index]
        frac -= np.round(frac)
        # planes of lattice points are 1 / |b| apart
        counts = np.ceil(radius * np.array(lattice.reciprocal_lattice_crystallographic.abc) + 0.5)
        spans = [np.arange(-n, n + 1) for n in counts]
        shifts = np.stack(np.meshgrid(*spans, indexing="ij"), -1).reshape(-1, 3)
        vectors = (frac[:, None] + shifts).reshape(-1, 3) @ lattice.matrix
        distance = np.linalg.norm(vectors, axis=1)
        near = np.flatnonzero(distance < radius)
        near = near[np.argsort(distance[near], kind="stable")]
        symbols = np.array([site.specie.symbol for site in structure])
        return vectors[near], symbols[near // len(shifts)], distance[near]

    def summarise(self, values: Sequence[float] | np.ndarray, name: str) -> dict[str, float]:
        """Summarise a property of the inequivalent atoms, shape (sites,), in its unit.

        ``_mean`` and ``_std`` over atoms; ``_cation`` and ``_anion``: means that favour the least
        and the most electronegative atoms, exponentially and hence smoothly; ``_slope``: covariance
        with the electronegativity.
        """
        values, shares = np.asarray(values, dtype=float), self.shares
        chi = np.array([electronegativity(site.symbol) for site in self.sites])
        mean = shares @ values
        result = {"mean": mean, "std": np.sqrt(shares @ (values - mean) ** 2)}
        for label, from_end in (("cation", chi - chi.min()), ("anion", chi.max() - chi)):
            weights = shares * np.exp(-SHARPNESS * from_end)
            result[label] = weights @ values / weights.sum()
        result["slope"] = shares @ (values * (chi - shares @ chi))
        return {f"{name}_{label}": float(value) for label, value in result.items()}


def make_crystal(structure: Structure, name: str = "") -> Crystal:
    """Find the inequivalent atoms of a structure; ``name`` is for messages.

    Raises
    ------
    RhosightError
        For partial occupancies, or an element that the table of free atoms lacks.
    """
    where = name or structure.composition.reduced_formula
    if not structure.is_ordered:
        raise RhosightError(f"{where}: partial occupancies; give an ordered structure")
    symbols = list_symbols(structure)
    missing = sorted(set(symbols) - set(load_free_atoms().atoms))
    if missing:
        raise RhosightError(
            f"{where}: no free atom of {', '.join(missing)} in rhosight's table, which the "
            "descriptors need; choose a recipe without them"
        )
    structure = structure.copy().remove_oxidation_states()
    numbers = [site.specie.Z for site in structure]
    data = find_symmetry(structure, numbers)
    # without symmetry, every atom is its own kind
    orbits = np.arange(len(numbers)) if data is None else data.crystallographic_orbits
    axes = np.eye(3) if data is None else data.std_rotation_matrix
    members = [np.flatnonzero(orbits == orbit) for orbit in np.unique(orbits)]
    sites = tuple(Site(int(group[0]), symbols[group[0]], group) for group in members)
    return Crystal(structure, sites, np.asarray(axes, dtype=float))
