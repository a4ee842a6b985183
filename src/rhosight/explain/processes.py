"""Explanations of a descriptor model.

The modalities are groups of blocks of descriptors. A group that is absent has the descriptors of
another material, one of the training part at a time, and the value of a coalition is the mean over
all of these (interventional Shapley values; Janzing et al. 2020, arXiv:1910.13413). Such a mixture
of two crystals need not exist: the values say what the model makes of its inputs, which is what was
asked, and not what would happen to a crystal.

Nothing of the density's slice is seen by the model, so there is no map of it. What each descriptor
adds is told by integrated gradients instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..inputs.descriptors.blocks import needs_density
from ..models.gaussian_process.committee import Committee
from .gradients import integrated_gradients
from .shapley import chosen, shapley_values

GROUPS: dict[str, tuple[tuple[str, ...], str]] = {
    "composition": (
        ("fractions", "magpie", "elements"),
        "which elements, how much of each, and their properties",
    ),
    "structure": (
        ("volume", "prototype", "packing", "sites", "element_densities"),
        "structure type, volume, packing, and which elements are neighbours",
    ),
    "free atoms": (
        ("promolecule", "overlap"),
        "densities of free atoms put together, without bonding",
    ),
    "density": (
        ("total", "interstitial", "outside", "radial"),
        "the charge density: its distribution over the cell and about the atoms",
    ),
    "bonding": (
        ("difference", "bonds", "charges"),
        "what bonding changes: the difference from free atoms, bonds and charges",
    ),
    "energies": (
        ("energies", "potentials"),
        "electrostatics and the theory of the electron gas on the density",
    ),
}
"""Modality → its blocks, and what they say. Each block of a recipe is in one."""

MOST_OTHERS = 500
"""Materials of a background: time goes with their number times that of the training part."""


def no_map(blocks: Collection[str], details: bool) -> str:
    """Why there is no map of a model that reads these blocks, and what there is instead."""
    what = (
        "this model reads descriptors of the density and no slice of it"
        if needs_density(blocks)
        else "this model reads no density"
    )
    return f"{what}, so there is no map" + (": see its descriptors" if details else "")


def groups_of(blocks: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The modalities of a model that reads these blocks, and the blocks of each."""
    found = {
        name: tuple(block for block in own if block in blocks) for name, (own, _) in GROUPS.items()
    }
    return {name: own for name, own in found.items() if own}


class ProcessExplainer:
    """What a committee of Gaussian processes makes of the parts of its input.

    Parameters
    ----------
    process
        Fitted.
    background
        Block → table of b materials, which absent parts are taken from; the training part of the
        process if None.

    Attributes
    ----------
    groups
        Modality → its blocks.
    available
        Materials that the background was chosen from; its length is that of this object.
    """

    def __init__(self, process: Committee, background: Mapping[str, pd.DataFrame] | None = None):
        self.process = process
        self._features: dict[str, np.ndarray] = {}
        self._distances = []
        for member in process.members:
            features = member.scaled(background) if background else member.training_features
            self.available = len(next(iter(features.values())))
            rows = chosen(self.available, MOST_OTHERS)
            features = {name: table[rows] for name, table in features.items()}
            self._features |= features
            self._distances.append(member.distances(features))
        self.groups = groups_of(self._features)

    def __len__(self) -> int:
        return len(next(iter(self._features.values())))

    def shares(self, blocks: Mapping[str, pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
        """Base, shape (targets,), and Shapley values, (groups, targets), of one material."""
        own = [member.distances(member.scaled(blocks)) for member in self.process.members]

        def value(some: Collection[str]) -> np.ndarray:
            present = {block for group in some for block in self.groups[group]}
            found = []
            for member, near, others in zip(
                self.process.members, own, self._distances, strict=True
            ):
                mixed = {name: near[name] if name in present else others[name] for name in near}
                found.append(member.mean_at(mixed).mean(axis=0))
            return np.mean(found, axis=0)

        return shapley_values(value, list(self.groups))

    def descriptors(
        self, blocks: Mapping[str, pd.DataFrame], spread: np.ndarray
    ) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
        """What each descriptor of one material adds.

        Parameters
        ----------
        blocks
            One row each.
        spread
            Of the targets, shape (targets,), in their units.

        Returns
        -------
        DataFrame indexed by ``block.name``: ``value`` and a column for each target, numbered; then
        start and gap, as :func:`.gradients.integrated_gradients` has them, in the targets' units.
        """
        features = self.features(blocks)
        found, start, gap = integrated_gradients(
            lambda points: self.predict(points) / torch.from_numpy(spread),
            torch.from_numpy(features),
            torch.from_numpy(self.centre[None]),
            len(spread),
        )
        names = [(block, name) for block in self._features for name in self._names(blocks, block)]
        values = [float(blocks[block][name].iloc[0]) for block, name in names]
        index = pd.Index([_full_name(*pair) for pair in names], name="descriptor")
        table = pd.DataFrame({"value": values}, index=index)
        for number, row in enumerate(found * spread[:, None]):
            table[number] = row
        return table, start * spread, gap * spread

    @property
    def centre(self) -> np.ndarray:
        """Mean scaled features of the background, shape (features,)."""
        return np.hstack([self._features[name].mean(axis=0) for name in self._features])

    def features(self, blocks: Mapping[str, pd.DataFrame]) -> np.ndarray:
        """Scaled features of m materials side by side, shape (m, features)."""
        scaled: dict[str, np.ndarray] = {}
        for member in self.process.members:
            scaled |= member.scaled(blocks)
        return np.hstack([scaled[name] for name in self._features])

    def predict(self, features: Tensor) -> Tensor:
        """Predictions (m, targets) of scaled features (m, features), differentiable."""
        widths = [self._features[name].shape[1] for name in self._features]
        parts = dict(zip(self._features, features.split(widths, dim=1), strict=True))
        found = [m.mean_at(m.distances(parts), torch) for m in self.process.members]
        return torch.stack(found).mean(dim=0)

    def _names(self, blocks: Mapping[str, pd.DataFrame], block: str) -> list[str]:
        member = next(m for m in self.process.members if block in m.blocks)
        return [n for n, used in zip(blocks[block], member.used[block], strict=True) if used]


def _full_name(block: str, column: str) -> str:
    return column if column.startswith(f"{block}.") else f"{block}.{column}"
