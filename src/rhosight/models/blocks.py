"""Read all blocks of a recipe: descriptors, features of encoders, CHGNet."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pymatgen.core import Composition, Structure

from ..dataset.dataset import Dataset
from ..density.bare_crystal import Crystal
from ..density.charge_density import ChargeDensity
from ..density.crystals import as_structure
from ..density.free_atoms import list_elements
from ..inputs.descriptors.blocks import (
    COMPOSITION_BLOCKS,
    compute_block_table,
    iterate_blocks,
    needs_density,
)
from ..inputs.progress import Progress
from .baselines.potential import compute_potential_blocks
from .gaussian_process.recipe import DescriptorRecipe
from .materials import list_crystals, list_densities

if TYPE_CHECKING:
    from .encoder_blocks import EncoderBlocks

Crystals = Dataset | Sequence[Crystal] | Sequence[ChargeDensity] | Sequence[Structure]

logger = logging.getLogger(__name__)

CHUNK = 16
"""Crystals read by encoders at a time."""

PER_PROCESS = 48
"""Materials for which it is worth the time to start another process."""


def keep_describable(dataset: Dataset, recipe: DescriptorRecipe) -> Dataset:
    """Return the materials whose elements have free atoms, if blocks need them.

    A warning names the elements of those that are left out.
    """
    if set(recipe.blocks) <= set(COMPOSITION_BLOCKS):
        return dataset
    known = set(list_elements())
    lacking = [
        {str(e) for e in Composition(formula).element_composition} - known
        for formula in dataset.table["formula"]
    ]
    kept = [not missing for missing in lacking]
    if all(kept):
        return dataset
    elements = ", ".join(sorted(set().union(*lacking)))
    logger.warning(
        "%d of %d materials are left out: rhosight's table of free atoms lacks %s",
        kept.count(False),
        len(kept),
        elements,
    )
    return dataset[kept]


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
        if self.encoders is None and not self.recipe.uses_potential:
            yield from iterate_blocks(read(crystals), blocks, progress)
            return
        for start in range(0, len(crystals), CHUNK):
            part: Any = crystals[start : start + CHUNK]
            crystals_read = list(read(part))  # a file is read once
            tables = [compute_block_table(crystals_read, blocks)]
            if self.recipe.uses_potential:
                structures = [as_structure(crystal) for crystal in crystals_read]
                tables.append(compute_potential_blocks(structures))
            if self.encoders:
                tables.append(self.encoders.compute(part))
            yield part, pd.concat(tables, axis=1)
            if progress:
                progress("features", start + len(part), len(crystals))

    def table(self, crystals: Crystals, progress: Progress | None = None) -> pd.DataFrame:
        """Return the table of all blocks, see :func:`rhosight.inputs.descriptors.blocks`.

        Many crystals are read by several processes.
        """
        processes = count_processes(len(crystals), self.recipe.uses_encoders)
        if processes == 1:
            parts: Iterator[pd.DataFrame] = (part for _, part in self.iterate(crystals, progress))
        else:
            parts = self._read_in_parallel(crystals, processes, progress)
        return pd.concat(parts, ignore_index=True)

    def _read_in_parallel(
        self, crystals: Crystals, processes: int, progress: Progress | None
    ) -> Iterator[pd.DataFrame]:
        """Yield the tables of a few crystals each, in their order."""
        from joblib import Parallel, delayed

        settings = (self.recipe.model_dump_json(), self._saved, tuple(self._weights.items()))
        label = "features" if self.recipe.uses_encoders else "descriptors"
        starts = range(0, len(crystals), CHUNK)
        if progress:
            progress(label, 0, len(crystals))
        tasks = (delayed(_read_part)(settings, crystals[n : n + CHUNK]) for n in starts)
        with Parallel(processes, return_as="generator") as parallel:
            for start, part in zip(starts, parallel(tasks), strict=True):
                yield part
                if progress:
                    progress(label, start + len(part), len(crystals))


def count_processes(materials: int, with_encoders: bool) -> int:
    """Return how many processes read some materials; each takes seconds to start.

    ``OMP_NUM_THREADS`` limits them as it limits threads. A process that another has started reads
    alone, and so does one whose encoders run on a GPU.
    """
    if materials < 2 * PER_PROCESS:
        return 1
    from joblib import cpu_count

    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # nested levels follow
    cores = int(limit) if limit.isdecimal() and int(limit) else cpu_count()
    if cores == 1 or parent_process() is not None:
        return 1
    if with_encoders:
        from ..networks.features import find_device

        if find_device().type != "cpu":
            return 1
    return min(cores, materials // PER_PROCESS)


@lru_cache(maxsize=1)
def _make_reader(recipe: str, saved: Path | None, weights: tuple[tuple[str, str], ...]) -> Any:
    """Return the reader of a process, whose encoders are loaded once."""
    return BlockReader(DescriptorRecipe.model_validate_json(recipe), saved, dict(weights))


def _read_part(settings: tuple[Any, ...], crystals: Crystals) -> pd.DataFrame:
    parts = [part for _, part in _make_reader(*settings).iterate(crystals)]
    return pd.concat(parts, ignore_index=True)
