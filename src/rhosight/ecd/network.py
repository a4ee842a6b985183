"""The network that predicts the difference density at a point from its features."""

from __future__ import annotations

import torch
from torch import nn

from ..density.free_atoms import list_elements
from .surroundings import GAUSSIANS

CODE, HIDDEN, WIDTH = 16, 32, 192
"""Numbers that describe a site: weights of its radial functions, and what points take over."""

FLOOR = 1e-3
"""e/Å³; the predicted difference is in units of the root of the free atoms' density, at least
this."""

LIMIT = 6.0
"""Standardised features end here: beyond, the training set has hardly any points."""


class DensityNetwork(nn.Module):
    """Predict the difference density of points, e/Å³.

    Each inequivalent site gets a code from its surroundings and its element. It weights the radial
    functions around the site, so that the site's contribution to a point is a learned function of
    the distance. These contributions, the codes of the atoms around the point and its other
    features enter a residual network.

    Parameters
    ----------
    local, site
        Numbers of features of a point and of a site.
    """

    local_mean: torch.Tensor
    local_scale: torch.Tensor
    site_mean: torch.Tensor
    site_scale: torch.Tensor

    def __init__(self, local: int, site: int) -> None:
        super().__init__()
        self.register_buffer("local_mean", torch.zeros(local))
        self.register_buffer("local_scale", torch.ones(local))
        self.register_buffer("site_mean", torch.zeros(site))
        self.register_buffer("site_scale", torch.ones(site))
        self.element = nn.Parameter(0.3 * torch.randn(len(list_elements()), CODE))
        self.site_layer = nn.Linear(site + CODE, HIDDEN)
        self.site_code = nn.Linear(HIDDEN, CODE)
        self.first = nn.Linear(local + GAUSSIANS * CODE + 2 * HIDDEN, WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.last = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.last.weight)

    def standardise(self, local: torch.Tensor, site: torch.Tensor) -> None:
        """Take over mean and scale of the features of points and sites."""
        for name, values in (("local", local), ("site", site)):
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            getattr(self, f"{name}_scale").copy_(values.std(0) + 1e-3)

    def forget_elements(self, known: torch.Tensor) -> None:
        """Set the vectors of all elements except the known ones (indices) to that of none."""
        absent = torch.ones(len(self.element), dtype=torch.bool)
        absent[known] = False
        with torch.no_grad():
            self.element[absent] = 0.0

    def forward(
        self,
        local: torch.Tensor,
        sites: torch.Tensor,
        which: torch.Tensor,
        site_features: torch.Tensor,
        elements: torch.Tensor,
        valence: torch.Tensor,
        known: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the difference at points, e/Å³, shape (n,).

        Parameters
        ----------
        local, sites, valence
            As in ``PointFeatures``.
        which
            Site of each row of ``sites``: an index in ``site_features``, shape (n, sites).
        site_features, elements
            Of all sites, shapes (m, features) and (m,).
        known
            0 for sites whose element counts as unknown, 1 otherwise; shape (m,).
        """
        code, inner = self._describe_sites(site_features, elements, known)
        radial = torch.bmm(sites[..., :GAUSSIANS].transpose(1, 2), code[which])
        around = torch.bmm(sites[..., GAUSSIANS:].transpose(1, 2), inner[which])
        scaled = ((local - self.local_mean) / self.local_scale).clamp(-LIMIT, LIMIT)
        x = torch.cat([scaled, radial.flatten(1), around.flatten(1)], dim=1)
        return self._conclude(self.first(x), valence)

    def _describe_sites(
        self, site_features: torch.Tensor, elements: torch.Tensor, known: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the codes of sites, and what points take over from them."""
        own = self.element[elements]
        if known is not None:
            own = own * known[:, None]
        scaled = (site_features - self.site_mean) / self.site_scale
        inner = nn.functional.silu(
            self.site_layer(torch.cat([scaled.clamp(-LIMIT, LIMIT), own], dim=1))
        )
        return own + self.site_code(inner), inner

    def _conclude(self, x: torch.Tensor, valence: torch.Tensor) -> torch.Tensor:
        """Return the difference from the output of the first layer; see ``forward``."""
        x = nn.functional.silu(x, inplace=not x.requires_grad)
        for block in self.blocks:
            x = x + nn.functional.silu(block(x))
        return self.last(x)[:, 0] * torch.sqrt(valence.clamp(min=FLOOR))

    def specialise(
        self, constant: torch.Tensor, site_features: torch.Tensor, elements: torch.Tensor
    ) -> CrystalNetwork:
        """Return the same function for the points of one crystal, with fewer operations.

        Features that all points share join the bias, and the codes of the sites, which
        ``forward`` applies to each point, join the weights.

        Parameters
        ----------
        constant
            Local features that all points have in common, NaN where they differ; shape (features,).
        site_features, elements
            Of the crystal's sites, as in ``forward``.
        """
        code, inner = self._describe_sites(site_features, elements, None)
        local, radial, around = self.first.weight.split(
            [len(constant), GAUSSIANS * CODE, 2 * HIDDEN], dim=1
        )
        of_sites = torch.cat(
            [
                torch.einsum("wgc,sc->wsg", radial.view(WIDTH, GAUSSIANS, CODE), code),
                torch.einsum("wah,sh->wsa", around.view(WIDTH, 2, HIDDEN), inner),
            ],
            dim=2,
        )
        varies = constant.isnan()
        scaled = ((constant - self.local_mean) / self.local_scale).clamp(-LIMIT, LIMIT)
        return CrystalNetwork(
            self,
            varies,
            torch.cat([local[:, varies], of_sites.flatten(1)], dim=1).T.contiguous(),
            self.first.bias + local @ scaled.nan_to_num(0.0),
        )


class CrystalNetwork:
    """A network for one crystal; ``DensityNetwork.specialise`` makes it."""

    def __init__(
        self,
        network: DensityNetwork,
        varies: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
    ) -> None:
        self._network, self._weight, self._bias = network, weight, bias
        self._mean, self._scale = network.local_mean[varies], network.local_scale[varies]
        self._local = len(self._mean)

    def __call__(self, points: torch.Tensor, valence: torch.Tensor) -> torch.Tensor:
        """Return the difference at points, e/Å³, shape (n,).

        Parameters
        ----------
        points
            Local features that vary and flattened ``sites``, shape (n, features + sites · 16).
        valence
            As in ``PointFeatures``.
        """
        x = points.clone()
        x[:, : self._local].sub_(self._mean).div_(self._scale).clamp_(-LIMIT, LIMIT)
        return self._network._conclude(torch.addmm(self._bias, x, self._weight), valence)
