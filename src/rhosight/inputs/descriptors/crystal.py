"""A crystal as the descriptors see it: inequivalent atoms, their neighbours, free atoms."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import spglib
from pymatgen.core import Structure
from safetensors import safe_open
from scipy.integrate import cumulative_simpson, simpson

from ...density.elements import electronegativity
from ...density.free_atoms import TABLE
from ...errors import RhosightError

COULOMB = 14.39964548
"""eV Å; e²/4πε₀ (CODATA 2018)."""

SYMPREC = 0.01
"""Å; atoms that symmetry maps onto each other within this are looked at once."""

SHARPNESS = 6.0
"""Per unit of electronegativity: how sharply :meth:`Crystal.ranked` tells the elements apart."""


@dataclass(frozen=True)
class FreeAtom:
    """One spherical free atom on ``radii`` (Å): valence and smooth core (e/Å³), the potential
    energy of an electron in the field of the neutral atom (eV), all three (n,); its valence
    electrons, and their second moment ∫ r² n (e Å²).
    """

    radii: np.ndarray
    valence: np.ndarray
    core: np.ndarray
    potential: np.ndarray
    electrons: float
    moment: float


@cache
def free_atoms() -> dict[str, FreeAtom]:
    """The table of :mod:`rhosight.density.free_atoms` in real space, by symbol."""
    with safe_open(TABLE, framework="numpy") as file:
        about = file.metadata()
        symbols = json.loads(about["elements"])
        valence, core = (file.get_tensor(n).astype(float) for n in ("valence", "core"))
    radii = np.linspace(0, float(about["reach"]), valence.shape[1])
    atoms = {}
    for symbol, density, smooth in zip(symbols, valence, core, strict=True):
        shell = 4 * np.pi * radii**2 * density
        inner = cumulative_simpson(shell, x=radii, initial=0)
        outer = cumulative_simpson(4 * np.pi * radii * density, x=radii, initial=0)
        safe = np.maximum(radii, radii[1] / 2)  # the nucleus itself is never looked at
        potential = -COULOMB * ((inner[-1] - inner) / safe - (outer[-1] - outer))
        moment = float(simpson(shell * radii**2, x=radii))
        atoms[symbol] = FreeAtom(radii, density, smooth, potential, float(inner[-1]), moment)
    return atoms


def reach() -> float:
    """Å; where free atoms end."""
    return float(next(iter(free_atoms().values())).radii[-1])


@dataclass(frozen=True)
class Site:
    """One inequivalent atom: its index in the structure, element, and the indices of the atoms
    that it stands for, itself included.
    """

    index: int
    symbol: str
    members: np.ndarray

    @property
    def count(self) -> int:
        """How many atoms of the cell it stands for."""
        return len(self.members)


@dataclass(frozen=True)
class Crystal:
    """A structure, its inequivalent atoms, and the axes that directions refer to (rows, Cartesian
    unit vectors).
    """

    structure: Structure
    sites: tuple[Site, ...]
    axes: np.ndarray

    @property
    def n_atoms(self) -> int:
        """Atoms of the cell."""
        return len(self.structure)

    @property
    def volume(self) -> float:
        """Å³ per atom."""
        return self.structure.volume / self.n_atoms

    @cached_property
    def shares(self) -> np.ndarray:
        """The fraction of all atoms that each inequivalent one stands for, (sites,)."""
        return np.array([site.count for site in self.sites]) / self.n_atoms

    def neighbours(self, index: int, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The atom itself and all others within ``radius`` (Å), nearest first: vectors from it
        (n, 3), symbols (n,), distances (n,).
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

    def ranked(self, values: Sequence[float] | np.ndarray, name: str) -> dict[str, float]:
        """What a property of the inequivalent atoms, (sites,), says of the crystal.

        ``_mean`` and ``_std`` over atoms; ``_cation`` and ``_anion``: means that favour the least
        and the most electronegative atoms, exponentially and hence smoothly; ``_slope``: covariance
        with the electronegativity. In the property's unit.
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


def crystal_of(structure: Structure, name: str = "") -> Crystal:
    """The inequivalent atoms of a structure, whose name goes into messages.

    Raises
    ------
    RhosightError
        For partial occupancies, or an element that the table of free atoms lacks.
    """
    where = name or structure.composition.reduced_formula
    if not structure.is_ordered:
        raise RhosightError(f"{where}: partial occupancies; give an ordered structure")
    symbols = [getattr(site.specie, "symbol", str(site.specie)) for site in structure]
    missing = sorted(set(symbols) - set(free_atoms()))
    if missing:
        raise RhosightError(
            f"{where}: no free atom of {', '.join(missing)} in rhosight's table, which the "
            "descriptors need; choose a recipe without them"
        )
    structure = structure.copy().remove_oxidation_states()
    numbers = [site.specie.Z for site in structure]
    data = None
    with warnings.catch_warnings(), suppress(getattr(spglib, "SpglibError", RuntimeError)):
        warnings.simplefilter("ignore")
        cell = (structure.lattice.matrix, structure.frac_coords, numbers)
        data = spglib.get_symmetry_dataset(cell, SYMPREC)
    # where no symmetry is found, every atom stands for itself
    orbits = np.arange(len(numbers)) if data is None else data.crystallographic_orbits
    axes = np.eye(3) if data is None else data.std_rotation_matrix
    members = [np.flatnonzero(orbits == orbit) for orbit in np.unique(orbits)]
    sites = tuple(Site(int(group[0]), symbols[group[0]], group) for group in members)
    return Crystal(structure, sites, np.asarray(axes, dtype=float))
