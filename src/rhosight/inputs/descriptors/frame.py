"""Descriptors of a crystal and its charge density, in named blocks.

Each is intensive and does not depend on how a crystal is stored: primitive or conventional cell or
a supercell, any origin and order of atoms (to the accuracy of shells and splines, within 2 % of the
spread over materials). A column is called ``block.name``; the functions of this package document
its meaning, unit and source.

Blocks of :data:`STRUCTURE_BLOCKS` need the crystal alone:

- ``fractions``, ``element_densities``, ``elements``: :mod:`.elements`
- ``overlap``, ``packing``: :mod:`.pairs`
- ``sites``: :mod:`.sites`
- ``lattice``, ``environments``: :mod:`.environments`

one of :data:`TOTAL_BLOCKS` its `total`:

- ``interstitial``: :mod:`.shapes`

the others `total` and `difference`:

- ``energies``, ``potentials``: :mod:`.energies`
- ``outside``, ``radial``, ``charges``, ``bonds``: :mod:`.shapes`

``interstitial`` uses only quantities on which codes agree. ``outside`` also excludes the region
near the nuclei, but uses steep functions, and the difference, whose free atoms are each code's own.
Electrostatic potentials depend on the cores everywhere.

>>> dataset = rhosight.load_dataset("mp-fcc")
>>> density_descriptors(dataset["mp-149"].density, ["bonds"])["bonds.length"]  # Å
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pandas as pd
from pymatgen.core import Structure

from ...density.bare_crystal import Crystal as Material
from ...density.bare_crystal import require_density
from ...density.charge_density import ChargeDensity
from ...errors import RhosightError
from ..progress import Progress
from . import elements, energies, environments, pairs, shapes, sites
from .crystal import Crystal, make_crystal
from .quadrature import Sampler, make_shells

__all__ = [
    "BLOCKS",
    "STRUCTURE_BLOCKS",
    "TOTAL_BLOCKS",
    "block_columns",
    "density_descriptors",
    "descriptor_frame",
    "structure_descriptors",
]

_STRUCTURE_FUNCTIONS: dict[str, Callable[[Crystal], dict[str, float]]] = {
    "fractions": elements.fractions,
    "element_densities": elements.element_densities,
    "elements": elements.elements,
    "overlap": pairs.overlap,
    "packing": pairs.packing,
    "sites": sites.sites,
    "lattice": environments.lattice,
    "environments": environments.environments,
}
_DENSITY_FUNCTIONS: dict[str, Callable[..., dict[str, float]]] = {
    "energies": energies.energies,
    "potentials": energies.potentials,
    "interstitial": shapes.interstitial,
    "outside": shapes.outside,
    "radial": shapes.radial,
    "charges": shapes.charges,
}

STRUCTURE_BLOCKS: tuple[str, ...] = tuple(_STRUCTURE_FUNCTIONS)
"""Blocks that need the structure alone."""

TOTAL_BLOCKS: tuple[str, ...] = ("interstitial",)
"""Blocks that need `total` but not `difference`."""

BLOCKS: tuple[str, ...] = (*STRUCTURE_BLOCKS, *_DENSITY_FUNCTIONS, "bonds")
"""All blocks."""


def structure_descriptors(
    structure: Structure, blocks: Sequence[str] = STRUCTURE_BLOCKS, name: str = ""
) -> dict[str, float]:
    """Compute the descriptors of a crystal that need no density.

    Parameters
    ----------
    structure
        Ordered; elements of :func:`rhosight.density.free_atoms.list_elements`.
    blocks
        Names of :data:`STRUCTURE_BLOCKS`.
    name
        Name of the material in messages; its formula by default.

    Returns
    -------
    dict
        ``block.name`` → value, finite; the same names for every crystal.

    Raises
    ------
    RhosightError
        For an unknown block or one that needs the density, partial occupancies, or an element
        without a free atom.
    """
    _check_blocks(blocks, STRUCTURE_BLOCKS)
    return _describe_structure(make_crystal(structure, name), blocks)


def density_descriptors(density: Material, blocks: Sequence[str] = BLOCKS) -> dict[str, float]:
    """Compute the descriptors of a crystal and its density.

    Parameters
    ----------
    density
        With `total`, and `difference` if a block needs it
        (:func:`rhosight.density.free_atoms.difference_from_total` adds the latter); otherwise as
        for :func:`structure_descriptors`. A crystal without density suffices for blocks that need
        none.
    blocks
        Names of :data:`BLOCKS`.

    Returns
    -------
    dict
        ``block.name`` → value, finite; the same names for every crystal.

    Raises
    ------
    RhosightError
        As :func:`structure_descriptors`, and for a kind of density that is missing.
    """
    _check_blocks(blocks, BLOCKS)
    crystal = make_crystal(density.structure, density.name)
    result = _describe_structure(crystal, [block for block in blocks if block in STRUCTURE_BLOCKS])
    wanted = [block for block in blocks if block not in STRUCTURE_BLOCKS]
    if not wanted:
        return result
    density = require_density(density)
    sampler = Sampler(density)
    on_shells = [block for block in wanted if block in _DENSITY_FUNCTIONS]
    if on_shells:
        shells = make_shells(crystal)
        near = Sampler(density, local=True)
        fields, local = ([s(shell.frac) for shell in shells] for s in (sampler, near))
        for block in on_shells:
            extra = (sampler,) if block == "energies" else ()
            used = local if block in TOTAL_BLOCKS else fields
            result |= _add_prefix(block, _DENSITY_FUNCTIONS[block](crystal, shells, used, *extra))
    if "bonds" in wanted:
        result |= _add_prefix("bonds", shapes.bonds(crystal, sampler))
    return result


def descriptor_frame(
    crystals: Sequence[Material] | Sequence[ChargeDensity] | Sequence[Structure],
    blocks: Sequence[str] = BLOCKS,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Compute the descriptors of many materials as a table.

    Parameters
    ----------
    crystals
        n densities, or structures.
    blocks
        Names of :data:`BLOCKS`.
    progress
        Called with ("descriptors", done, n) after each.

    Returns
    -------
    pandas.DataFrame
        n rows in the order given, index 0 … n − 1; columns in the order of :data:`BLOCKS`, not of
        ``blocks``.
    """
    _check_blocks(blocks, BLOCKS)
    rows = []
    for done, crystal in enumerate(crystals, 1):
        compute: Callable[..., dict[str, float]] = (
            structure_descriptors if isinstance(crystal, Structure) else density_descriptors
        )
        rows.append(compute(crystal, blocks))
        if progress is not None:
            progress("descriptors", done, len(crystals))
    frame = pd.DataFrame(rows)
    columns = block_columns(frame.columns)
    return frame[[name for block in BLOCKS for name in columns.get(block, [])]]


def block_columns(columns: Iterable[str]) -> dict[str, list[str]]:
    """Return block → its columns, in their order."""
    result: dict[str, list[str]] = {}
    for column in columns:
        result.setdefault(column.partition(".")[0], []).append(column)
    return result


def _describe_structure(crystal: Crystal, blocks: Iterable[str]) -> dict[str, float]:
    result: dict[str, float] = {}
    for block in blocks:
        result |= _add_prefix(block, _STRUCTURE_FUNCTIONS[block](crystal))
    return result


def _add_prefix(block: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{block}.{name}": value for name, value in values.items()}


def _check_blocks(blocks: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(blocks, str):
        raise RhosightError(f"blocks are a list of names, not {blocks!r}; write [{blocks!r}]")
    unknown = [block for block in blocks if block not in known]
    if unknown:
        why = (
            "needs a density; without one, choose from"
            if unknown[0] in BLOCKS
            else "is unknown; choose from"
        )
        raise RhosightError(f"descriptors: block {unknown[0]!r} {why} {', '.join(known)}")
