"""Describe points of a crystal by the atoms around them.

All features are sums over neighbours, or functions of such sums, that depend on distances, angles
and elements alone: they are the same in any cell of a crystal, and continuous in the positions.

- The superposition of free atoms: density, gradient, Laplacian, smooth core, potential.
- Radial Gaussians times properties of the elements relative to the crystal's mean, as in
  smooth-overlap descriptors; powers of spherical harmonics of l = 1 to 4 (Bartók et al., Phys. Rev.
  B 87, 184115 (2013), doi:10.1103/PhysRevB.87.184115).
- The same for each atom, given to points by the atoms' shares in the free-atom density (Hirshfeld,
  doi:10.1007/BF00549096) and by nearness.
- Radial Gaussians over the atoms of each inequivalent site, for which the network learns its own
  weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..density.crystals import list_symbols
from ..density.free_atoms import list_elements
from .properties import CONTRAST
from .surroundings import (
    ANGULAR,
    CORE,
    GAUSSIANS,
    LAPLACIAN,
    LEVELS,
    POTENTIAL,
    REACH,
    SLOPE,
    TURN,
    TURNED,
    VALENCE,
    AtomFinder,
    Neighbours,
    harmonics,
    look_up,
)
from .symmetry import Symmetry

CHANNELS = 3
"""Angular features of the neighbours' number, and times their first two properties."""

EXCHANGE = 10.6
"""eV Å; exchange potential of the local-density approximation, over the cube root of density."""

TINY = 1e-12
"""Keeps shares finite at points without an atom in reach."""

CHUNK = 1000
"""Points whose neighbours are in memory at a time."""


@dataclass(frozen=True, eq=False)
class PointFeatures:
    """Features of n points of one crystal, in single precision.

    Attributes
    ----------
    local
        Features that need no learning, shape (n, features).
    sites
        Radial sums, share and nearness of each site, shape (n, sites, 16).
    site_features
        Features of the inequivalent atoms, shape (sites, features).
    elements
        Their elements, indices in ``list_elements``, shape (sites,).
    valence
        Free atoms' valence density, e/Å³, shape (n,).
    nearest
        Distance to the nearest nucleus, Å, double precision, shape (n,).
    """

    local: torch.Tensor
    sites: torch.Tensor
    site_features: torch.Tensor
    elements: torch.Tensor
    valence: torch.Tensor
    nearest: torch.Tensor


class CrystalFeatures:
    """Compute the features of points of one crystal.

    Parameters
    ----------
    symmetry
        The crystal and its symmetry.
    properties
        Standardised properties of the elements, shape (elements, properties).
    """

    def __init__(self, symmetry: Symmetry, properties: np.ndarray) -> None:
        structure = symmetry.structure
        names = list_elements()
        elements = np.array([names.index(symbol) for symbol in list_symbols(structure)])
        self._find = AtomFinder(np.array(structure.lattice.matrix), structure.frac_coords)
        self._species, kind = np.unique(elements, return_inverse=True)
        self._kind = torch.from_numpy(kind)
        self._element = torch.from_numpy(elements)
        shares = np.bincount(kind) / len(kind)
        own = properties[self._species]
        mean = shares @ own
        spread = np.sqrt(shares @ (own - mean) ** 2)
        contrast = np.concatenate([np.ones((len(own), 1)), (own - mean)[:, :CONTRAST]], axis=1)
        self._contrast = torch.from_numpy(contrast).float()
        volume = structure.volume / len(kind)
        whole = np.concatenate([mean, spread, [np.cbrt(volume), np.log(volume)]])
        self._whole = torch.from_numpy(whole).float()
        self._site, first = _group_atoms(structure.frac_coords, symmetry)
        self.site_elements = self._element[first]
        neighbours = self._find(structure.frac_coords[first], skip_own=True)
        radial, spectrum, _ = self._sum_up(neighbours)
        scaled = torch.from_numpy(properties[elements[first]]).float()
        self.site_features = torch.cat([scaled, radial, spectrum], dim=1)

    def __call__(self, frac: np.ndarray) -> PointFeatures:
        """Return the features of points, fractional, shape (n, 3)."""
        parts = list(self._compute(frac))
        local, sites, valence, nearest = (torch.cat(part) for part in zip(*parts, strict=True))
        return PointFeatures(local, sites, self.site_features, self.site_elements, valence, nearest)

    def _compute(self, frac: np.ndarray) -> Iterator[tuple[torch.Tensor, ...]]:
        for start in range(0, len(frac), CHUNK):
            neighbours = self._find(frac[start : start + CHUNK])
            radial, spectrum, functions = self._sum_up(neighbours)
            distance = neighbours.distance.float()
            valence = functions[..., VALENCE]
            inside = distance < REACH
            shares = torch.where(inside, valence + 1e-6 * torch.exp(-distance), 0.0)
            shares = shares / shares.sum(1, keepdim=True).clamp(min=TINY)
            closeness = torch.where(inside, torch.exp(-6 * (distance - distance[:, :1])), 0.0)
            closeness = closeness / closeness.sum(1, keepdim=True).clamp(min=TINY)
            site = self._site[neighbours.atom]
            is_site = torch.nn.functional.one_hot(site, len(self.site_features)).to(radial.dtype)
            mixed = torch.einsum("nk,nks->ns", shares, is_site)
            close = torch.einsum("nk,nks->ns", closeness, is_site)
            pull = torch.einsum("nk,nkx->nx", shares, neighbours.direction).norm(dim=1)
            expected = (closeness * distance).sum(1)
            shape = torch.stack(
                [
                    (shares * distance).sum(1),
                    expected,
                    torch.log(expected + 0.05),
                    (shares**2).sum(1),
                    (closeness**2).sum(1),
                    pull,
                ],
                dim=1,
            )
            sums = torch.bmm(functions[..., :GAUSSIANS].transpose(1, 2), is_site)
            sites = torch.cat([sums.transpose(1, 2), mixed[..., None], close[..., None]], dim=2)
            local = [shape, radial, spectrum, self._whole.expand(len(shape), -1)]
            yield torch.cat(local, dim=1), sites, valence.sum(1), neighbours.distance[:, 0]

    def _sum_up(self, neighbours: Neighbours) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return radial and angular features, and the radial functions of all neighbours."""
        functions = look_up(neighbours.distance, self._element[neighbours.atom])
        kinds = self._kind[neighbours.atom]
        is_kind = torch.nn.functional.one_hot(kinds, len(self._species)).to(functions.dtype)
        sums = torch.bmm(functions[..., :TURNED].transpose(1, 2), is_kind)
        total = sums.sum(2)
        slopes = functions[..., SLOPE, None] * neighbours.direction
        radial = [
            _describe_free_atoms(total, slopes.sum(1).norm(dim=1)),
            (sums[:, :GAUSSIANS] @ self._contrast).flatten(1),
        ]
        near = max(int((neighbours.distance < TURN).sum(1).max()), 1)
        bells = functions[:, :near, TURNED:, None] * is_kind[:, :near, None]
        turned = torch.bmm(
            bells.flatten(2).transpose(1, 2), harmonics(neighbours.direction[:, :near])
        )
        turned = turned.view(len(turned), len(ANGULAR), len(self._species), -1)
        channels = torch.einsum("nrsm,sc->nrcm", turned, self._contrast[:, :CHANNELS])
        powers = [channels[..., level].square().sum(-1).flatten(1) for level in LEVELS]
        spectrum = torch.sqrt(torch.cat(powers, dim=1) + 1e-4)
        return torch.cat(radial, dim=1), spectrum, functions


def _describe_free_atoms(sums: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return features of the superposed free atoms, shape (n, 10)."""
    valence, laplacian, core, potential = (
        sums[:, column] for column in (VALENCE, LAPLACIAN, CORE, POTENTIAL)
    )
    floor = valence.clamp(min=0) + 0.01
    root = torch.pow(valence.clamp(min=1e-5), 1 / 3)
    return torch.stack(
        [
            valence,
            torch.log(valence.clamp(min=0) + 1e-3),
            gradient / torch.pow(floor, 4 / 3),
            laplacian / torch.pow(floor, 5 / 3) / 10,
            root,
            core,
            torch.log(core.clamp(min=0) + 1e-3),
            torch.log(1 - potential.clamp(max=0)),
            potential / 10,
            (potential - EXCHANGE * root) / 10,
        ],
        dim=1,
    )


def _group_atoms(frac: np.ndarray, symmetry: Symmetry) -> tuple[torch.Tensor, np.ndarray]:
    """Return the inequivalent site of each atom, and the first atom of each site."""
    lowest = np.arange(len(frac))
    for rotation, translation in zip(symmetry.rotations, symmetry.translations, strict=True):
        shift = (frac @ rotation.T + translation)[:, None] - frac[None]
        shift -= np.round(shift)
        partner = np.linalg.norm(shift @ symmetry.structure.lattice.matrix, axis=-1).argmin(axis=1)
        lowest = np.minimum(lowest, partner)
    first, site = np.unique(lowest, return_inverse=True)
    return torch.from_numpy(site), first
