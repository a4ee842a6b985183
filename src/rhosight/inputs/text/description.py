"""Text: a crystal structure in words, to three extents, and how much of it an encoder reads.

``formula`` is the reduced formula, ``keywords`` adds the bond lengths in Å, and ``all`` is the
description by Robocrystallographer (Ganose & Jain, MRS Commun. 9, 874 (2019),
doi:10.1557/mrc.2019.94). One crystal, one text: each is made from a canonical primitive cell, so
neither the cell setting nor the order or origin of the atoms matters. Oxidation states and other
decorations of the input are dropped for the same reason: whether a file carries them says nothing
about the crystal.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import spglib
from pymatgen.core import Composition, Lattice, Structure

from ...errors import RhosightError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from .robocrystallographer import Robocrystallographer

Extent = Literal["formula", "keywords", "all"]

EXTENTS: tuple[Extent, ...] = get_args(Extent)

SYMPREC = 0.01
"""Tolerance of the symmetry search, Å: Robocrystallographer's own default."""

# A pair of elements with more different lengths than this is given as a range: a list would fill
# the 77 tokens that CLIP reads.
MAX_LENGTHS_PER_PAIR = 3

# Distances up to this factor times the shortest count as nearest, as in MinimumDistanceNN.
NEAREST_FACTOR = 1.1

_SHARING = re.compile(
    r"\b(?:corner|edge|face)(?:(?:, and |, | and )(?:corner|edge|face))+(?=-sharing)"
)


def describe(structure: Structure, extent: Extent = "all", name: str = "") -> str:
    """The description of one crystal.

    Parameters
    ----------
    structure
        Any cell of the crystal. Only elements, occupancies and positions count.
    extent
        ``formula``: the reduced formula. ``keywords``: the formula and the lengths of the bonds
        (CrystalNN, as in Robocrystallographer) between each pair of elements, Å, with the number
        of such bonds of an atom, averaged over the atoms of that element. Where no bond is found,
        the nearest distances stand instead and the text says so. ``all``: Robocrystallographer's
        text, plain, without site labels; on the conventional cell, offline (mineral names come
        from its bundled prototypes; molecules are not named, which would ask PubChem).
    name
        What messages call this material; the reduced formula if empty.

    Raises
    ------
    RhosightError
        For an unknown extent, a structure without atoms, or (``all``) one that
        Robocrystallographer cannot describe, such as a disordered one; the message names it.
    """
    if extent not in EXTENTS:
        raise RhosightError(f"unknown extent of text `{extent}`; known are {', '.join(EXTENTS)}")
    if not len(structure):
        raise RhosightError(f"{name or 'structure'}: has no atoms; give one with at least one site")
    with warnings.catch_warnings():
        # The libraries warn of deprecations, missing oxidation states or electronegativities,
        # which a caller can do nothing about.
        warnings.simplefilter("ignore")
        formula = _formula(structure)
        if extent == "formula":
            return formula
        cell = canonical_cell(structure)
        if extent == "keywords":
            return _keywords(cell, formula)
        try:
            return _robocrystallographer(cell)
        except ImportError as error:  # of this installation, not of the structure
            raise RhosightError(f"Robocrystallographer cannot be used: {error}") from error
        except Exception as error:  # its failures have no common type
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RhosightError(
                f"{name or formula}: Robocrystallographer cannot describe this structure "
                f"({reason}); use the shorter extents `keywords` or `formula`"
            ) from error


def describe_many(
    structures: Sequence[Structure],
    extent: Extent = "all",
    names: Sequence[str] | None = None,
    progress: bool = False,
) -> list[str]:
    """The descriptions of several crystals, in order; see :func:`describe`.

    Of ``all``, the first takes ten seconds or more, which is what loading Robocrystallographer
    takes, and the others a fraction of a second each; ``progress`` shows a bar on the terminal.
    """
    names = [""] * len(structures) if names is None else names
    if len(names) != len(structures):
        raise RhosightError(
            f"{len(structures)} structures but {len(names)} names; give one name per structure"
        )
    numbers = range(len(names))
    if progress:
        from rich.progress import track

        numbers = track(numbers, description=f"Text ({extent})")
    return [describe(structures[i], extent, names[i]) for i in numbers]


def settled(text: str) -> str:
    """A text of Robocrystallographer without what in it is chance or LaTeX: connectivities
    ("corner, edge, and face-sharing") come in the order of a set of strings, which changes with
    Python's hash seed, and here in the alphabet's; two minerals' names hold LaTeX.
    """
    text = text.replace(r"$\mu$", "mu").replace(r"\'{c}", "c")
    return " ".join(_SHARING.sub(_sorted_sharing, text).split())


def token_counts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Number of tokens of each text, special tokens included, before any truncation; shape (n,).

    ``tokenizer`` is a Hugging Face tokenizer, as its ``AutoTokenizer`` gives.
    """
    if not len(texts):
        return np.zeros(0, dtype=int)
    # `verbose`: no warning for a text beyond the model's limit, which is what is asked here
    encoded = tokenizer(list(texts), truncation=False, padding=False, verbose=False)
    return np.array([len(ids) for ids in encoded["input_ids"]], dtype=int)


def truncated_fraction(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> float:
    """Fraction (0 to 1) of texts with more than ``max_tokens`` tokens, special ones included:
    those of which an encoder does not read the end. CLIP reads 77, RoBERTa 512.
    """
    if not len(texts):
        raise RhosightError("no texts to count tokens of; give at least one")
    return float(np.mean(token_counts(texts, tokenizer) > max_tokens))


def _formula(structure: Structure) -> str:
    """The reduced formula; of a disordered crystal the one with whole numbers, since pymatgen
    reduces fractional amounts differently for every size of cell.
    """
    composition = _elements(structure.composition)
    if structure.is_ordered:
        return composition.reduced_formula
    return composition.get_integer_formula_and_factor(max_denominator=1000)[0]


def _elements(composition: Composition) -> Composition:
    """Without oxidation states and spins."""
    return Composition(composition.get_el_amt_dict())


def canonical_cell(structure: Structure) -> Structure:
    """The same cell, to the last bit, for every setting of one crystal: spglib's idealised
    primitive cell on the Niggli-reduced basis, with the origin and the choice among equivalent
    bases for which the sorted coordinates come first, the least electronegative kind of site
    first. Bits matter: Robocrystallographer numbers sites in the order found, and a length of
    2.845 Å prints as 2.84 or 2.85 by the last one.
    """
    kinds = [_elements(site.species) for site in structure]
    ordered = sorted(
        {kind.formula: kind for kind in kinds}.values(),
        key=lambda kind: (np.nan_to_num(kind.average_electroneg, nan=np.inf), kind.formula),
    )
    index = {kind.formula: i for i, kind in enumerate(ordered)}
    plain = Structure(structure.lattice, kinds, structure.frac_coords)
    cell = plain.lattice.matrix, plain.frac_coords, [index[kind.formula] for kind in kinds]
    try:
        lattice, coords, numbers = spglib.standardize_cell(cell, True, symprec=SYMPREC)
        basis = spglib.niggli_reduce(lattice)
        coords = coords @ lattice @ np.linalg.inv(basis)
    except Exception:  # by version, spglib raises or returns None, e.g. for atoms too close
        return plain  # the text is still worth having
    if np.linalg.det(basis) < 0:
        basis, coords = -basis, -coords

    # Proper rotations only: a chiral crystal is not its mirror image.
    rotations = spglib.get_symmetry((basis, [[0, 0, 0]], [1]), symprec=1e-5)["rotations"]
    rotations = rotations[np.linalg.det(rotations) > 0]
    counts = Counter(numbers.tolist())
    rarest = min(counts, key=lambda number: (counts[number], number))
    best: tuple[list, np.ndarray, np.ndarray] | None = None
    for origin in coords[numbers == rarest]:
        for rotation in rotations:
            moved = np.round((coords - origin) @ rotation.T % 1.0, 8) % 1.0
            # Binned off the round numbers, where a crystallographic coordinate would fall on
            # either side of a boundary by noise.
            bins = np.floor(moved * 1e5 + 0.3137).astype(int)
            rows = np.column_stack((numbers, bins))
            order = np.lexsort(rows.T[::-1])
            key = rows[order].tolist()
            if best is None or key < best[0]:
                best = key, moved[order], numbers[order]
    _, coords, numbers = best
    lattice = Lattice.from_parameters(*np.round(Lattice(basis).parameters, 6))
    return Structure(lattice, [ordered[number] for number in numbers], coords)


def _keywords(cell: Structure, formula: str) -> str:
    """The formula and the bond lengths, one sentence."""
    bonds, what = _bonds(cell), "bond lengths"
    if not bonds:
        bonds, what = _nearest(cell), "nearest distances"
    labels = ["/".join(sorted(element.symbol for element in site.species)) for site in cell]
    atoms = Counter(labels)
    rank = {label: i for i, label in enumerate(atoms)}
    lengths: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for i, j, length in bonds:
        # The shift settles a length that is exactly between two roundings.
        lengths[labels[i], labels[j]][f"{length + 1e-6:.2f}"] += 1

    found: list[tuple[float, int, int, str]] = []
    for one, other in (pair for pair in list(lengths) if rank[pair[0]] <= rank[pair[1]]):
        there, back = lengths[one, other], lengths[other, one]
        values = sorted({*there, *back}, key=float)
        many = len(values) > MAX_LENGTHS_PER_PAIR
        for group in [values] if many else [[value] for value in values]:
            per_atom = [f"{sum(there[v] for v in group) / atoms[one]:.3g} per {one}"]
            if one != other:
                per_atom.append(f"{sum(back[v] for v in group) / atoms[other]:.3g} per {other}")
            span = "-".join(dict.fromkeys((group[0], group[-1])))
            phrase = f"{one}-{other} {span} Å ({', '.join(per_atom)})"
            found.append((float(group[0]), rank[one], rank[other], phrase))
    return f"{formula} has {what} {'; '.join(phrase for *_, phrase in sorted(found))}."


def _bonds(cell: Structure) -> list[tuple[int, int, float]]:
    """Site, bonded site, length in Å, in both directions; none where CrystalNN finds none or
    fails, as on disordered sites.
    """
    from pymatgen.analysis.local_env import CrystalNN

    if not cell.is_ordered:
        return []
    try:
        graph = CrystalNN().get_bonded_structure(cell)
    except Exception:  # its failures have no common type, and the nearest distances remain
        return []
    sites = range(len(cell))
    return [(i, to.index, to.dist) for i in sites for to in graph.get_connected_sites(i)]


def _nearest(cell: Structure) -> list[tuple[int, int, float]]:
    """Site, nearest site, distance in Å, in both directions."""
    radius = 4.0
    centers, points, _, distances = cell.get_neighbor_list(radius)
    while len(np.unique(centers)) < len(cell):  # ends: an atom's own image is a neighbour
        radius *= 1.5
        centers, points, _, distances = cell.get_neighbor_list(radius)
    nearest = np.full(len(cell), np.inf)
    np.minimum.at(nearest, centers, distances)
    # From either end, so that the relation is mutual as a bond is.
    keep = distances <= NEAREST_FACTOR * np.maximum(nearest[centers], nearest[points])
    chosen = (column[keep].tolist() for column in (centers, points, distances))
    return list(zip(*chosen, strict=True))


def _robocrystallographer(cell: Structure) -> str:
    if not cell.is_ordered:  # its own message for this names an attribute of pymatgen
        raise ValueError("it does not support partly occupied or mixed sites")
    return settled(_robocrys().describe(cell))


def _sorted_sharing(match: re.Match[str]) -> str:
    *words, last = sorted(re.findall("corner|edge|face", match.group()))
    return f"{words[0]} and {last}" if len(words) == 1 else f"{', '.join(words)}, and {last}"


@cache
def _robocrys() -> Robocrystallographer:
    """One for the process; importing the package takes ten seconds or more."""
    from .robocrystallographer import Robocrystallographer

    return Robocrystallographer(symprec=SYMPREC)
