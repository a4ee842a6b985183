"""Blocks of descriptors as one table, the input of descriptor models.

It combines composition and structure type (:mod:`rhosight.inputs.descriptors.composition`),
statistics of the density over the cell (:mod:`rhosight.inputs.descriptors.statistics`), and the
blocks of :mod:`rhosight.inputs.descriptors.frame`.

>>> table = compute_block_table(dataset.densities, ("magpie", "volume", "outside"))
>>> to_blocks(table, prototypes=[])["outside"]
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from ...density.bare_crystal import BareCrystal, Crystal, require_density
from ...density.charge_density import ChargeDensity, Kind
from ...density.crystals import as_structure
from ...density.free_atoms import difference_from_total
from ...errors import RhosightError
from ..progress import Progress
from .composition import composition_features
from .frame import BLOCKS, STRUCTURE_BLOCKS, TOTAL_BLOCKS, block_columns, descriptor_frame
from .statistics import density_features

Crystals = Sequence[Crystal] | Sequence[ChargeDensity] | Sequence[Structure]

COMPOSITION_BLOCKS = ("magpie", "volume", "prototype")
"""Blocks of :func:`rhosight.inputs.descriptors.composition.composition_features`: Magpie's
statistics, volume per atom, and the structure type, one column for each in the training set."""

STATISTICS_BLOCKS: tuple[Kind, ...] = ("total", "difference", "promolecule")
"""Blocks of :func:`rhosight.inputs.descriptors.statistics.density_statistics`, one per kind of
density."""

ALL_BLOCKS: tuple[str, ...] = (*COMPOSITION_BLOCKS, *STATISTICS_BLOCKS, *BLOCKS)
"""All blocks that a model can use."""

SPARSE = ("fractions", "element_densities", "prototype")
"""Blocks whose features are mostly zero; they are standardised without arcsinh."""

CHUNK = 8
"""Densities decoded at a time."""

CACHE_SIZE = 1000
"""Number of crystals whose descriptors a process remembers, some 20 kB each.

Several models and commands ask for the same crystals: a prediction and its explanation, the rows of
a cross-validation.
"""

_cache: OrderedDict[str, tuple[frozenset[str], pd.DataFrame]] = OrderedDict()
"""Hash of a crystal → its blocks and one row with their columns."""

_lock = Lock()


def needs_density(blocks: Collection[str]) -> bool:
    """Return whether these blocks need a charge density."""
    return bool(set(blocks) - {*COMPOSITION_BLOCKS, *STRUCTURE_BLOCKS})


def needs_difference(blocks: Collection[str]) -> bool:
    """Return whether these blocks need `difference`."""
    return bool(set(blocks) - {*COMPOSITION_BLOCKS, *STRUCTURE_BLOCKS, *TOTAL_BLOCKS, "total"})


def compute_block_table(
    crystals: Crystals,
    blocks: Collection[str],
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Compute the descriptors of n crystals.

    Parameters
    ----------
    crystals
        Densities, or structures if no block needs a density. A density that has only `total` gets
        its `difference` from :mod:`rhosight.density.free_atoms`, if a block needs it.
    blocks
        Names of :data:`ALL_BLOCKS`.
    progress
        Called with ("descriptors", done, n).

    Returns
    -------
    pandas.DataFrame
        n rows; columns ``block.name``, and ``prototype``, a label.

    Raises
    ------
    RhosightError
        For a crystal that lacks what the blocks need, has partial occupancies, or contains an
        element that has no free atom.
    """
    parts = [descriptors for _, descriptors in iterate_blocks(crystals, blocks, progress)]
    return pd.concat(parts, ignore_index=True)


def iterate_blocks(
    crystals: Crystals,
    blocks: Collection[str],
    progress: Progress | None = None,
) -> Iterator[tuple[Crystals, pd.DataFrame]]:
    """Yield a few crystals at a time with their part of :func:`compute_block_table`.

    Each crystal is read once and then released.
    """
    for start in range(0, len(crystals), CHUNK):
        part = crystals[start : start + CHUNK]
        yield part, _compute_part(part, blocks)
        if progress:
            progress("descriptors", start + len(part), len(crystals))


def to_blocks(table: pd.DataFrame, prototypes: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return block → its columns; structure types not in ``prototypes`` give zeros."""
    columns = block_columns(str(name) for name in table if name != "prototype")
    blocks = {name: table[names] for name, names in columns.items()}
    categories: Any = list(prototypes)
    labels = pd.Categorical(table["prototype"], categories=categories)
    blocks["prototype"] = pd.get_dummies(labels, dtype=float)
    return blocks


def _compute_part(crystals: Crystals, blocks: Collection[str]) -> pd.DataFrame:
    """Return the descriptors of a few crystals, known or computed."""
    part: list[Any] = list(crystals)  # decoded once
    keys = [_hash(crystal, needs_density(blocks)) for crystal in part]
    rows = {n: row for n, key in enumerate(keys) if (row := _recall(key, blocks)) is not None}
    if missing := [n for n in range(len(part)) if n not in rows]:
        table = _compute([part[n] for n in missing], blocks)
        for number, n in enumerate(missing):
            rows[n] = table.iloc[[number]]
            _remember(keys[n], blocks, rows[n])
    return pd.concat([rows[n] for n in range(len(part))], ignore_index=True)


def _hash(crystal: Any, with_density: bool) -> str:
    """Return the hash of all that descriptors read of a crystal."""
    structure = as_structure(crystal)
    digest = hashlib.sha256(np.array(structure.lattice.matrix, "<f8").tobytes())
    digest.update(np.array(structure.frac_coords, "<f8").tobytes())
    digest.update(" ".join(str(site.species) for site in structure).encode())
    if with_density and not isinstance(crystal, Structure):
        for kind, grid in sorted(crystal.grids.items()):
            digest.update(f"{kind} {grid.dtype} {grid.shape}".encode())
            digest.update(np.ascontiguousarray(grid).data)
    return digest.hexdigest()


def _recall(key: str, blocks: Collection[str]) -> pd.DataFrame | None:
    """Return the row of a crystal if all of these blocks were computed."""
    with _lock:
        if key not in _cache:
            return None
        _cache.move_to_end(key)
        known, row = _cache[key]
    wanted = {*COMPOSITION_BLOCKS, *blocks}
    if not wanted <= known:
        return None
    columns = [name for name in row if str(name).partition(".")[0] in wanted]
    return row[columns]


def _remember(key: str, blocks: Collection[str], row: pd.DataFrame) -> None:
    with _lock:
        _cache[key] = frozenset({*COMPOSITION_BLOCKS, *blocks}), row
        _cache.move_to_end(key)
        while len(_cache) > CACHE_SIZE:
            _cache.popitem(last=False)


def _compute(crystals: Crystals, blocks: Collection[str]) -> pd.DataFrame:
    densities: list[ChargeDensity] = []
    if needs_density(blocks):
        both = needs_difference(blocks)
        densities = [prepare_density(crystal, both) for crystal in crystals]
        crystals = densities
    composition = composition_features([as_structure(c) for c in crystals])
    parts = [
        composition[["prototype"]],
        composition.filter(regex="^MagpieData ").add_prefix("magpie."),
        composition[["volume_per_atom"]].add_prefix("volume."),
    ]
    for kind in STATISTICS_BLOCKS:
        if kind in blocks:
            statistics = density_features(densities, kind).drop(columns="volume_per_atom")
            parts.append(statistics.add_prefix(f"{kind}."))
    others = [n for n in blocks if n not in (*COMPOSITION_BLOCKS, *STATISTICS_BLOCKS)]
    if others:  # which need free atoms of all elements
        parts.append(descriptor_frame(crystals, others))
    return pd.concat(parts, axis=1)


def prepare_density(crystal: Any, with_difference: bool) -> ChargeDensity:
    """Return a density, with its difference from free atoms if that is needed.

    Raises
    ------
    RhosightError
        For a structure without density.
    """
    if isinstance(crystal, BareCrystal):
        return require_density(crystal)
    if not isinstance(crystal, ChargeDensity):
        raise RhosightError(
            f"{crystal.composition.reduced_formula}: this model reads charge densities; use the "
            "model no-dft for a structure alone"
        )
    if not with_difference or "difference" in crystal.grids:
        return crystal
    return difference_from_total(crystal)
