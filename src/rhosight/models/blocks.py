"""Read all blocks of a recipe: descriptors, and features of encoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pymatgen.core import Structure

from ..dataset.dataset import Dataset
from ..density.bare_crystal import BareCrystal
from ..density.charge_density import ChargeDensity
from ..inputs.descriptors.blocks import compute_block_table, iterate_blocks, needs_density
from ..inputs.progress import Progress
from .gaussian_process.recipe import DescriptorRecipe
from .materials import list_crystals, list_densities

if TYPE_CHECKING:
    from .encoder_blocks import EncoderBlocks

Crystals = Dataset | Sequence[ChargeDensity] | Sequence[BareCrystal] | Sequence[Structure]

CHUNK = 16
"""Crystals read by encoders at a time."""


class BlockReader:
    """Computes the blocks of crystals, a few at a time.

    Parameters
    ----------
    recipe
        The settings.
    saved, weights
        Folder of a saved model, and the hashes of the encoders from which it has learned.
    """

    def __init__(
        self,
        recipe: DescriptorRecipe,
        saved: Path | None = None,
        weights: Mapping[str, str] | None = None,
    ):
        self.recipe = recipe
        self._saved, self._weights = saved, weights or {}

    @cached_property
    def encoders(self) -> EncoderBlocks | None:
        """The recipe's encoders, loaded when they are first needed; None without any."""
        if not self.recipe.uses_encoders:
            return None
        from .encoder_blocks import EncoderBlocks  # loads PyTorch

        return EncoderBlocks(self.recipe, self._saved, self._weights)

    def iterate(
        self, crystals: Crystals, progress: Progress | None = None
    ) -> Iterator[tuple[Any, pd.DataFrame]]:
        """Yield a few crystals at a time with the table of their blocks.

        Each crystal is read once and then released. ``progress`` is called with (label, done, all).
        """
        blocks = self.recipe.blocks
        read = list_densities if needs_density(blocks) else list_crystals
        if self.encoders is None:
            yield from iterate_blocks(read(crystals), blocks, progress)
            return
        for start in range(0, len(crystals), CHUNK):
            part: Any = crystals[start : start + CHUNK]
            descriptors = compute_block_table(read(part), blocks)
            yield part, pd.concat([descriptors, self.encoders.compute(part)], axis=1)
            if progress:
                progress("features", start + len(part), len(crystals))

    def table(self, crystals: Crystals, progress: Progress | None = None) -> pd.DataFrame:
        """Return the table of all blocks, see :func:`rhosight.inputs.descriptors.blocks`."""
        return pd.concat([part for _, part in self.iterate(crystals, progress)], ignore_index=True)
