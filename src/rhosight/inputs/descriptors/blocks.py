"""Blocks of descriptors of many crystals, as one table: what models of numbers read.

Composition and structure type (:mod:`rhosight.models.baselines.baselines`), statistics of the density over the cell
(likewise), and the blocks of :mod:`rhosight.inputs.descriptors.frame`, under one roof.

>>> table = block_table(dataset.densities, ("magpie", "volume", "outside"))
>>> to_blocks(table, prototypes=[])["outside"]
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pandas as pd
from pymatgen.core import Structure

from ...density.charge_density import ChargeDensity
from ...density.free_atoms import difference_from_total
from ...errors import RhosightError
from ..progress import Progress
from .composition import composition_features
from .frame import BLOCKS, STRUCTURE_BLOCKS, TOTAL_BLOCKS, block_columns, descriptor_frame
from .statistics import density_features

Crystals = Sequence[ChargeDensity] | Sequence[Structure]

COMPOSITION_BLOCKS = ("magpie", "volume", "prototype")
"""Blocks that :func:`rhosight.inputs.descriptors.composition.composition_features` gives: Magpie's statistics, volume
per atom, and the structure type, one column for each that the training part has."""

STATISTICS_BLOCKS = ("total", "difference", "promolecule")
"""Blocks of :func:`rhosight.inputs.descriptors.statistics.density_statistics`, one for each kind of density."""

ALL_BLOCKS: tuple[str, ...] = (*COMPOSITION_BLOCKS, *STATISTICS_BLOCKS, *BLOCKS)
"""All that a model can be given."""

SPARSE = ("fractions", "element_densities", "prototype")
"""Blocks whose features are mostly zero: standardised as they are."""

CHUNK = 8
"""Densities that are decoded at a time."""


def needs_density(blocks: Collection[str]) -> bool:
    """Whether a structure is not enough for these blocks."""
    return bool(set(blocks) - {*COMPOSITION_BLOCKS, *STRUCTURE_BLOCKS})


def needs_difference(blocks: Collection[str]) -> bool:
    """Whether `total` is not enough for these blocks."""
    return bool(set(blocks) - {*COMPOSITION_BLOCKS, *STRUCTURE_BLOCKS, *TOTAL_BLOCKS, "total"})


def block_table(
    crystals: Crystals,
    blocks: Collection[str],
    progress: Progress | None = None,
) -> pd.DataFrame:
    """All numbers of some blocks, of n crystals.

    Parameters
    ----------
    crystals
        Densities, or structures if no block needs a density. A density that has only `total` gets
        its `difference` from :mod:`rhosight.density.free_atoms`, if a block needs it.
    blocks
        Of :data:`ALL_BLOCKS`.
    progress
        Called with ("descriptors", done, n).

    Returns
    -------
    DataFrame of n rows; columns ``block.name``, and ``prototype``, a label.

    Raises
    ------
    RhosightError
        For a crystal without what the blocks need, with partial occupancies, or with an element
        that has no free atom.
    """
    parts = [descriptors for _, descriptors in described(crystals, blocks, progress)]
    return pd.concat(parts, ignore_index=True)


def described(
    crystals: Crystals,
    blocks: Collection[str],
    progress: Progress | None = None,
) -> Iterator[tuple[Crystals, pd.DataFrame]]:
    """A few crystals at a time, each read once and then forgotten, and their part of
    :func:`block_table`.
    """
    for start in range(0, len(crystals), CHUNK):
        part = crystals[start : start + CHUNK]
        yield part, _descriptors(part, blocks)
        if progress:
            progress("descriptors", start + len(part), len(crystals))


def to_blocks(table: pd.DataFrame, prototypes: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Block → its columns; structure types that the training part lacks are none of the known."""
    columns = block_columns(name for name in table if name != "prototype")
    blocks = {name: table[names] for name, names in columns.items()}
    labels = pd.Categorical(table["prototype"], categories=prototypes)
    blocks["prototype"] = pd.get_dummies(labels, dtype=float)
    return blocks


def structure_of(crystal: ChargeDensity | Structure) -> Structure:
    """The crystal without its density."""
    return crystal.structure if isinstance(crystal, ChargeDensity) else crystal


def _descriptors(crystals: Crystals, blocks: Collection[str]) -> pd.DataFrame:
    if needs_density(blocks):
        both = needs_difference(blocks)
        crystals = [_density(crystal, both) for crystal in crystals]
    composition = composition_features([structure_of(c) for c in crystals])
    parts = [
        composition[["prototype"]],
        composition.filter(regex="^MagpieData ").add_prefix("magpie."),
        composition[["volume_per_atom"]].add_prefix("volume."),
    ]
    for kind in STATISTICS_BLOCKS:
        if kind in blocks:
            statistics = density_features(crystals, (kind,)).drop(columns="volume_per_atom")
            parts.append(statistics.add_prefix(f"{kind}."))
    others = [n for n in blocks if n not in (*COMPOSITION_BLOCKS, *STATISTICS_BLOCKS)]
    parts.append(descriptor_frame(crystals, others))
    return pd.concat(parts, axis=1)


def _density(crystal: Any, with_difference: bool) -> ChargeDensity:
    if not isinstance(crystal, ChargeDensity):
        raise RhosightError(
            f"{crystal.composition.reduced_formula}: this model reads charge densities; use the "
            "model no-dft for a structure alone"
        )
    if not with_difference or "difference" in crystal.grids:
        return crystal
    return difference_from_total(crystal)
