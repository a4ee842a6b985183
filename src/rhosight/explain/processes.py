"""Attribute predictions of a descriptor model to groups and descriptors.

The modalities are groups of blocks of descriptors. An absent group is replaced by the descriptors
of each training material in turn; the value of a coalition is the mean over these predictions
(interventional Shapley values; Janzing et al. 2020, arXiv:1910.13413). Such a mixture of two
crystals need not exist: the values describe how the model uses its inputs, not what would happen to
a crystal.

The model does not read a slice of the density, so there is no map. Integrated gradients attribute
the prediction to single descriptors instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..inputs.descriptors.blocks import needs_density
from ..models.gaussian_process.committee import Committee
from ..models.gaussian_process.scales import TargetScales
from .gradients import integrated_gradients
from .shapley import select_rows, shapley_values

GROUPS: dict[str, tuple[tuple[str, ...], str]] = {
    "composition": (
        ("fractions", "magpie", "elements"),
        "the elements, their fractions and their properties",
    ),
    "structure": (
        (
            *("volume", "prototype", "lattice", "packing", "sites", "environments"),
            "element_densities",
        ),
        "structure type, volume, packing, and neighbouring elements",
    ),
    "free atoms": (
        ("promolecule", "overlap"),
        "superposed densities of free atoms, without bonding",
    ),
    "density": (
        ("total", "interstitial", "outside", "radial"),
        "the charge density: its distribution in the cell and around the atoms",
    ),
    "bonding": (
        ("difference", "bonds", "charges"),
        "effects of bonding: the difference from free atoms, bonds and charges",
    ),
    "energies": (
        ("energies", "potentials"),
        "electrostatic energies and electron-gas functionals of the density",
    ),
    "potential": (("potential",), "formation energy and bulk modulus of a general potential"),
    "image": (("image",), "what the image encoder reads on slices of the density"),
    "text": (("text",), "what the text encoder reads in the description"),
}
"""Modality → its blocks and a description. Each block of a recipe belongs to one modality; an
encoder's blocks begin with its name, ``image-…``."""

MOST_OTHERS, MOST_PAIRS = 500, 480_000
"""Largest background, and largest product of its size and that of the training set: the time of an
explanation, about a second."""


def describe_missing_map(blocks: Collection[str], details: bool) -> str:
    """Return a note that explains why a descriptor model has no map."""
    reason = (
        "this model reads descriptors of the density but no slice of it"
        if needs_density(blocks)
        else "this model reads no density"
    )
    return f"{reason}, so there is no map" + ("; see its descriptors instead" if details else "")


def group_blocks(blocks: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return modality → its blocks for a model that reads these blocks."""
    groups = {
        name: tuple(block for block in blocks if block in own or block.split("-")[0] in own)
        for name, (own, _) in GROUPS.items()
    }
    return {name: own for name, own in groups.items() if own}


class ProcessAttributions:
    """Attributions of the predictions of a committee of Gaussian processes.

    The length of this object is the number of background materials.

    Parameters
    ----------
    process
        A fitted committee.
    background
        Block → table of b materials, which replace absent blocks; the training set of the committee
        if None.
    scales
        In which the targets were learned; attributions are in the targets' units.

    Attributes
    ----------
    groups
        Modality → its blocks.
    available
        Number of materials from which the background was selected.
    """

    def __init__(
        self,
        process: Committee,
        background: Mapping[str, pd.DataFrame] | None,
        scales: TargetScales,
    ):
        self.process, self.scales = process, scales
        self._features: dict[str, np.ndarray] = {}
        self._distances = []
        for member in process.members:
            features = member.scaled(background) if background else member.training_features
            self.available = len(next(iter(features.values())))
            pairs = len(next(iter(member.training_features.values())))
            rows = select_rows(self.available, min(MOST_OTHERS, max(1, MOST_PAIRS // pairs)))
            features = {name: table[rows] for name, table in features.items()}
            self._features |= features
            self._distances.append(member.distances(features))
        self.groups = group_blocks(self._features)

    def __len__(self) -> int:
        return len(next(iter(self._features.values())))

    def shares(self, blocks: Mapping[str, pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
        """Return base, shape (targets,), and Shapley values, shape (groups, targets)."""
        own = [member.distances(member.scaled(blocks)) for member in self.process.members]

        def value(some: Collection[str]) -> np.ndarray:
            present = {block for group in some for block in self.groups[group]}
            means: list[np.ndarray] = []
            for member, near, others in zip(
                self.process.members, own, self._distances, strict=True
            ):
                mixed = {name: near[name] if name in present else others[name] for name in near}
                means.append(member.mean_at(mixed))
            # a member has one row if it reads no absent block
            mean = sum(means) / np.float64(len(means))
            return self.scales.restore(mean).mean(axis=0)

        return shapley_values(value, list(self.groups))

    def descriptors(
        self, blocks: Mapping[str, pd.DataFrame], spread: np.ndarray
    ) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
        """Return the attributions of the descriptors of one material.

        Parameters
        ----------
        blocks
            Block → table of one row.
        spread
            Standard deviations of the targets, shape (targets,), in their units.

        Returns
        -------
        DataFrame indexed by ``block.name``: ``value`` and a numbered column for each target; then
        start and gap of :func:`.gradients.integrated_gradients`, in the targets' units.
        """
        features = self.features(blocks)
        attributions, start, gap = integrated_gradients(
            lambda points: self.predict(points) / torch.from_numpy(spread),
            torch.from_numpy(features),
            torch.from_numpy(self.centre[None]),
            len(spread),
        )
        names = [(block, name) for block in self._features for name in self._names(blocks, block)]
        values = [float(blocks[block][name].iloc[0]) for block, name in names]
        index = pd.Index([_full_name(*pair) for pair in names], name="descriptor")
        table = pd.DataFrame({"value": values}, index=index)
        for number, row in enumerate(attributions * spread[:, None]):
            table[number] = row
        return table, start * spread, gap * spread

    @property
    def centre(self) -> np.ndarray:
        """Mean scaled features of the background, shape (features,)."""
        return np.hstack([self._features[name].mean(axis=0) for name in self._features])

    def features(self, blocks: Mapping[str, pd.DataFrame]) -> np.ndarray:
        """Return the scaled features of m materials side by side, shape (m, features)."""
        scaled: dict[str, np.ndarray] = {}
        for member in self.process.members:
            scaled |= member.scaled(blocks)
        return np.hstack([scaled[name] for name in self._features])

    def predict(self, features: Tensor) -> Tensor:
        """Return differentiable predictions (m, targets) of features (m, features)."""
        widths = [self._features[name].shape[1] for name in self._features]
        parts = dict(zip(self._features, features.split(widths, dim=1), strict=True))
        found = [m.mean_at(m.distances(parts), torch) for m in self.process.members]
        return self.scales.restore(torch.stack(found).mean(dim=0), torch)

    def _names(self, blocks: Mapping[str, pd.DataFrame], block: str) -> list[str]:
        """Return the names of the descriptors of a block that the committee uses."""
        member = next(m for m in self.process.members if block in m.blocks)
        return [str(n) for n, used in zip(blocks[block], member.used[block], strict=True) if used]


def _full_name(block: str, column: str) -> str:
    """Return ``block.column``, without doubling a prefix that the column already has."""
    return column if column.startswith(f"{block}.") else f"{block}.{column}"
