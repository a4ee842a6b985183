"""Numbers that the charge density and the crystal give a model of structure-property relations.

Each is intensive, and the same however a crystal is stored: primitive or conventional cell or a
supercell, any origin and order of atoms (to the accuracy of shells and splines, within 2 % of the
spread over materials). They come in named blocks; a column is called ``block.name``, and the
functions of this package say what each is, its unit and its source.

Blocks of :data:`STRUCTURE_BLOCKS` need the crystal alone:

- ``fractions``, ``element_densities``, ``elements``: :mod:`.elements`
- ``overlap``, ``packing``: :mod:`.pairs`
- ``sites``: :mod:`.sites`

one of :data:`TOTAL_BLOCKS` its `total`:

- ``interstitial``: :mod:`.shapes`

the others `total` and `difference`:

- ``energies``, ``potentials``: :mod:`.energies`
- ``outside``, ``radial``, ``charges``, ``bonds``: :mod:`.shapes`

``interstitial`` is made of what codes agree on. ``outside`` looks at nothing near the nuclei
either, but in steep functions, and at the difference, whose free atoms are each code's own.
Electrostatic potentials are nowhere free of the cores.

>>> dataset = rhosight.load_dataset("mp-fcc")
>>> density_descriptors(dataset["mp-149"].density, ["bonds"])["bonds.length"]  # Å
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pandas as pd
from pymatgen.core import Structure

from ...density.charge_density import ChargeDensity
from ...errors import RhosightError
from ..progress import Progress
from . import elements, energies, pairs, shapes, sites
from .crystal import Crystal, crystal_of
from .quadrature import Sampler, shells_of

__all__ = [
    "BLOCKS",
    "STRUCTURE_BLOCKS",
    "TOTAL_BLOCKS",
    "block_columns",
    "density_descriptors",
    "descriptor_frame",
    "structure_descriptors",
]

_OF_CRYSTAL: dict[str, Callable[[Crystal], dict[str, float]]] = {
    "fractions": elements.fractions,
    "element_densities": elements.element_densities,
    "elements": elements.elements,
    "overlap": pairs.overlap,
    "packing": pairs.packing,
    "sites": sites.sites,
}
_OF_SHELLS = {
    "energies": energies.energies,
    "potentials": energies.potentials,
    "interstitial": shapes.interstitial,
    "outside": shapes.outside,
    "radial": shapes.radial,
    "charges": shapes.charges,
}

STRUCTURE_BLOCKS: tuple[str, ...] = tuple(_OF_CRYSTAL)
"""Blocks that need the structure alone."""

TOTAL_BLOCKS: tuple[str, ...] = ("interstitial",)
"""Blocks that need `total`, but no `difference`."""

BLOCKS: tuple[str, ...] = (*STRUCTURE_BLOCKS, *_OF_SHELLS, "bonds")
"""All blocks."""


def structure_descriptors(
    structure: Structure, blocks: Sequence[str] = STRUCTURE_BLOCKS, name: str = ""
) -> dict[str, float]:
    """What a crystal says without its density.

    Parameters
    ----------
    structure
        Ordered; elements of :func:`rhosight.density.free_atoms.elements`.
    blocks
        Of :data:`STRUCTURE_BLOCKS`.
    name
        What messages call it; its formula by default.

    Returns
    -------
    ``block.name`` → value, finite; the same names for every crystal.

    Raises
    ------
    RhosightError
        For an unknown block or one that needs the density, partial occupancies, or an element
        without a free atom.
    """
    _check_blocks(blocks, STRUCTURE_BLOCKS)
    return _of_crystal(crystal_of(structure, name), blocks)


def density_descriptors(density: ChargeDensity, blocks: Sequence[str] = BLOCKS) -> dict[str, float]:
    """What a crystal and its density say.

    Parameters
    ----------
    density
        With `total`, and `difference` if a block needs it
        (:func:`rhosight.density.free_atoms.difference_from_total` makes the latter); as for
        :func:`structure_descriptors` otherwise.
    blocks
        Of :data:`BLOCKS`.

    Returns
    -------
    ``block.name`` → value, finite; the same names for every crystal.

    Raises
    ------
    RhosightError
        As :func:`structure_descriptors`, and for a kind of density that is missing.
    """
    _check_blocks(blocks, BLOCKS)
    crystal = crystal_of(density.structure, density.name)
    result = _of_crystal(crystal, [block for block in blocks if block in _OF_CRYSTAL])
    wanted = [block for block in blocks if block not in _OF_CRYSTAL]
    if not wanted:
        return result
    sampler = Sampler(density)
    around = [block for block in wanted if block in _OF_SHELLS]
    if around:
        shells = shells_of(crystal)
        near = Sampler(density, local=True)
        fields, local = ([s(shell.frac) for shell in shells] for s in (sampler, near))
        for block in around:
            also = (sampler,) if block == "energies" else ()
            seen = local if block in TOTAL_BLOCKS else fields
            result |= _named(block, _OF_SHELLS[block](crystal, shells, seen, *also))
    if "bonds" in wanted:
        result |= _named("bonds", shapes.bonds(crystal, sampler))
    return result


def descriptor_frame(
    crystals: Sequence[ChargeDensity] | Sequence[Structure],
    blocks: Sequence[str] = BLOCKS,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """:func:`density_descriptors` or :func:`structure_descriptors` of many materials.

    Parameters
    ----------
    crystals
        n densities, or structures.
    blocks
        Of :data:`BLOCKS`.
    progress
        Called with ("descriptors", done, n) after each.

    Returns
    -------
    DataFrame of n rows in the order given, index 0 … n − 1; columns in the order of
    :data:`BLOCKS`, whatever that of ``blocks``.
    """
    _check_blocks(blocks, BLOCKS)
    rows = []
    for done, crystal in enumerate(crystals, 1):
        describe = structure_descriptors if isinstance(crystal, Structure) else density_descriptors
        rows.append(describe(crystal, blocks))
        if progress is not None:
            progress("descriptors", done, len(crystals))
    frame = pd.DataFrame(rows)
    columns = block_columns(frame.columns)
    return frame[[name for block in BLOCKS for name in columns.get(block, [])]]


def block_columns(columns: Iterable[str]) -> dict[str, list[str]]:
    """Which of a frame's columns belong to each block, in their order."""
    result: dict[str, list[str]] = {}
    for column in columns:
        result.setdefault(column.partition(".")[0], []).append(column)
    return result


def _of_crystal(crystal: Crystal, blocks: Iterable[str]) -> dict[str, float]:
    result: dict[str, float] = {}
    for block in blocks:
        result |= _named(block, _OF_CRYSTAL[block](crystal))
    return result


def _named(block: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{block}.{name}": value for name, value in values.items()}


def _check_blocks(blocks: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(blocks, str):
        raise RhosightError(f"blocks are a list of names, not {blocks!r}; write [{blocks!r}]")
    unknown = [block for block in blocks if block not in known]
    if unknown:
        why = (
            "needs a density; known without are"
            if unknown[0] in BLOCKS
            else "is unknown; known are"
        )
        raise RhosightError(f"descriptors: block {unknown[0]!r} {why} {', '.join(known)}")
