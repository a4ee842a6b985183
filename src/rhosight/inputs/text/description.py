"""Descriptions of crystals in words, of three extents, and their tokens.

``formula`` is the reduced formula, ``keywords`` adds the bond lengths in Å, and ``all`` is the
description by Robocrystallographer (Ganose & Jain, MRS Commun. 9, 874 (2019),
doi:10.1557/mrc.2019.94). One crystal has one text: it is made from a canonical primitive cell, so
neither the cell setting nor the order or origin of the atoms matters. Oxidation states and other
decorations of the input are dropped for the same reason: some files contain them and others of the
same crystal do not.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import spglib
from pymatgen.core import Composition, Lattice, Structure

from ...density.crystals import SYMPREC, StructureLike, as_structure
from ...errors import RhosightError
from .extents import EXTENTS, Extent

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from .robocrystallographer import Robocrystallographer

# A pair of elements with more different lengths is given as a range: a list would fill the 77
# tokens that CLIP reads.
MAX_LENGTHS_PER_PAIR = 3

# Distances up to this factor times the shortest count as nearest, as in MinimumDistanceNN.
NEAREST_FACTOR = 1.1

_SHARING = re.compile(
    r"\b(?:corner|edge|face)(?:(?:, and |, | and )(?:corner|edge|face))+(?=-sharing)"
)


def describe(structure: StructureLike, extent: Extent = "all", name: str = "") -> str:
    """Describe one crystal in words.

    Parameters
    ----------
    structure
        Any cell of the crystal: a pymatgen ``Structure``, ASE ``Atoms`` or a ``ChargeDensity``.
        Only elements, occupancies and positions matter.
    extent
        ``formula``: the reduced formula. ``keywords``: the formula and the lengths of the bonds
        (CrystalNN, as in Robocrystallographer) between each pair of elements, Å, with the number
        of such bonds of an atom, averaged over the atoms of that element. If there are no bonds,
        the text gives the nearest distances and says so. ``all``: Robocrystallographer's text,
        plain, without site labels; on the conventional cell, offline (mineral names come from its
        bundled prototypes; molecules are not named, which would query PubChem).
    name
        Name of the material in messages; the reduced formula if empty.

    Raises
    ------
    RhosightError
        For an unknown extent, an object that is not a crystal, a structure without atoms, or
        (``all``) one that Robocrystallographer cannot describe, such as a disordered one.
    """
    if extent not in EXTENTS:
        raise RhosightError(
            f"unknown extent of text `{extent}`; choose one of {', '.join(EXTENTS)}"
        )
    structure = as_structure(structure)
    if not len(structure):
        raise RhosightError(f"{name or 'structure'}: has no atoms; give one with at least one site")
    with warnings.catch_warnings():
        # The libraries warn of deprecations, missing oxidation states or electronegativities, on
        # which a caller has no influence.
        warnings.simplefilter("ignore")
        formula = _write_formula(structure)
        if extent == "formula":
            return formula
        cell = canonical_cell(structure)
        if extent == "keywords":
            return _write_keywords(cell, formula)
        try:
            return _write_all(cell)
        except ImportError as error:  # of this installation, not of the structure
            raise RhosightError(f"Robocrystallographer cannot be used: {error}") from error
        except Exception as error:  # its errors have no common type
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RhosightError(
                f"{name or formula}: Robocrystallographer cannot describe this structure "
                f"({reason}); use the shorter extents `keywords` or `formula`"
            ) from error


def describe_many(
    structures: Sequence[StructureLike],
    extent: Extent = "all",
    names: Sequence[str] | None = None,
    progress: bool = False,
) -> list[str]:
    """Describe several crystals, in order; see :func:`describe`.

    The first text of extent ``all`` takes ten seconds or more, because Robocrystallographer is
    loaded, and the others a fraction of a second each. ``progress`` shows a bar on the terminal.
    """
    names = [""] * len(structures) if names is None else names
    if len(names) != len(structures):
        raise RhosightError(
            f"{len(structures)} structures but {len(names)} names; give one name per structure"
        )
    numbers: Iterable[int] = range(len(names))
    if progress:
        from rich.progress import track

        numbers = track(numbers, description=f"Text ({extent})")
    return [describe(structures[i], extent, names[i]) for i in numbers]


def normalise_text(text: str) -> str:
    """Return a text of Robocrystallographer without random order and LaTeX.

    Connectivities ("corner, edge, and face-sharing") come in the order of a set of strings, which
    changes with Python's hash seed; here they are sorted. The names of two minerals contain LaTeX.
    """
    text = text.replace(r"$\mu$", "mu").replace(r"\'{c}", "c")
    return " ".join(_SHARING.sub(_sort_sharing, text).split())


def count_tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Count the tokens of each text, special tokens included, before any truncation.

    Parameters
    ----------
    texts
        n texts.
    tokenizer
        A Hugging Face tokenizer, as from ``AutoTokenizer``.

    Returns
    -------
    numpy.ndarray
        Shape (n,), int.
    """
    if not len(texts):
        return np.zeros(0, dtype=int)
    # `verbose`: no warning for a text beyond the model's limit, which is to be counted here
    encoded = tokenizer(list(texts), truncation=False, padding=False, verbose=False)
    return np.array([len(ids) for ids in encoded["input_ids"]], dtype=int)


def truncated_fraction(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> float:
    """Return the fraction (0 to 1) of texts that an encoder truncates.

    These are texts with more than ``max_tokens`` tokens, special ones included. CLIP reads 77,
    RoBERTa 512.
    """
    if not len(texts):
        raise RhosightError("no texts to count tokens of; give at least one")
    return float(np.mean(count_tokens(texts, tokenizer) > max_tokens))


def _write_formula(structure: Structure) -> str:
    """Return the reduced formula; for a disordered crystal the one with whole numbers.

    pymatgen reduces fractional amounts differently for every size of cell.
    """
    composition = _drop_decorations(structure.composition)
    if structure.is_ordered:
        return composition.reduced_formula
    return composition.get_integer_formula_and_factor(max_denominator=1000)[0]


def _drop_decorations(composition: Composition) -> Composition:
    """Return the composition without oxidation states and spins."""
    return Composition(composition.get_el_amt_dict())


def canonical_cell(structure: Structure) -> Structure:
    """Return the same cell, to the last bit, for every setting of one crystal.

    It is spglib's idealised primitive cell on the Niggli-reduced basis. Among equivalent origins
    and bases, those with the smallest sorted coordinates are chosen, the least electronegative kind
    of site first. Bits matter: Robocrystallographer numbers sites in the order of the cell, and a
    length of 2.845 Å prints as 2.84 or 2.85 depending on the last bit.
    """
    kinds = [_drop_decorations(site.species) for site in structure]
    ordered = sorted(
        {kind.formula: kind for kind in kinds}.values(),
        key=lambda kind: (np.nan_to_num(kind.average_electroneg, nan=np.inf), kind.formula),
    )
    index = {kind.formula: i for i, kind in enumerate(ordered)}
    plain = Structure(structure.lattice, kinds, structure.frac_coords)
    cell: Any = (
        plain.lattice.matrix,
        plain.frac_coords,
        [index[kind.formula] for kind in kinds],
    )
    try:
        standard: Any = spglib.standardize_cell(_symmetrise(*cell), True, symprec=SYMPREC)
        lattice, coords, numbers = standard
        basis: Any = spglib.niggli_reduce(lattice)
        coords = coords @ lattice @ np.linalg.inv(basis)
    except Exception:  # by version, spglib raises or returns None, e.g. for atoms too close
        return plain  # a text of this cell is better than none
    if np.linalg.det(basis) < 0:
        basis, coords = -basis, -coords
    coords, numbers = _choose_setting(basis, coords, numbers)
    lengths_angles = np.round(Lattice(basis).parameters, 6)
    return Structure(
        Lattice.from_parameters(*lengths_angles), [ordered[number] for number in numbers], coords
    )


def _symmetrise(lattice: np.ndarray, coords: np.ndarray, numbers: Sequence[int]) -> Any:
    """Return a primitive cell that obeys its symmetry operations exactly.

    spglib idealises positions about an atom of its choice, which differs from cell to cell of one
    crystal: where a file misses the symmetry by thousandths of Å, so do the results. The mean over
    all operations, each about the centre of all atoms, does not depend on the cell.
    """
    cell: Any = (lattice, coords, numbers)
    # a supercell lacks the operations that do not map it onto itself
    primitive: Any = spglib.standardize_cell(cell, True, no_idealize=True, symprec=SYMPREC)
    lattice, coords, numbers = primitive
    symmetry: Any = spglib.get_symmetry(primitive, symprec=SYMPREC)
    rotations = symmetry["rotations"]
    metric = lattice @ lattice.T
    same_kind = np.equal.outer(numbers, numbers)
    new = np.zeros_like(coords)
    for rotation, translation in zip(rotations, symmetry["translations"], strict=True):
        image = coords @ rotation.T + translation
        apart = coords[None] - image[:, None]
        apart -= np.round(apart)
        squares = np.einsum("abi,ij,abj->ab", apart, metric, apart)
        partner = np.where(same_kind, squares, np.inf).argmin(axis=1)
        misses = apart[np.arange(len(coords)), partner]
        new[partner] += coords[partner] - misses + misses.mean(axis=0)
    metric = np.mean([rotation.T @ metric @ rotation for rotation in rotations], axis=0)
    turned = np.linalg.cholesky(metric) * np.sign(np.linalg.det(lattice))
    return turned, new / len(rotations), numbers


def _choose_setting(
    basis: np.ndarray, coords: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates and kinds in the setting of smallest sorted coordinates.

    Equivalent bases differ by proper rotations of the lattice ``basis`` (rows, Å).
    """
    # Proper rotations only: a chiral crystal is not its mirror image.
    lattice_cell: Any = (basis, [[0, 0, 0]], [1])
    symmetry: Any = spglib.get_symmetry(lattice_cell, symprec=1e-5)
    rotations = symmetry["rotations"]
    rotations = rotations[np.linalg.det(rotations) > 0]
    counts = Counter(numbers.tolist())
    rarest = min(counts, key=lambda number: (counts[number], number))
    best: tuple[list, np.ndarray, np.ndarray] | None = None
    for origin in coords[numbers == rarest]:
        for rotation in rotations:
            moved = np.round((coords - origin) @ rotation.T % 1.0, 8) % 1.0
            # Bins avoid round numbers as boundaries, on either side of which noise would put a
            # crystallographic coordinate.
            bins = np.floor(moved * 1e5 + 0.3137).astype(int)
            rows = np.column_stack((numbers, bins))
            order = np.lexsort(rows.T[::-1])
            key = rows[order].tolist()
            if best is None or key < best[0]:
                best = key, moved[order], numbers[order]
    assert best is not None
    _, coords, numbers = best
    return coords, numbers


def _write_keywords(cell: Structure, formula: str) -> str:
    """Return the formula and the bond lengths as one sentence."""
    bonds, what = _find_bonds(cell), "bond lengths"
    if not bonds:
        bonds, what = _find_nearest(cell), "nearest distances"
    labels = ["/".join(sorted(element.symbol for element in site.species)) for site in cell]
    atoms = Counter(labels)
    rank = {label: i for i, label in enumerate(atoms)}
    lengths: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for i, j, length in bonds:
        # The shift decides about a length exactly between two roundings.
        lengths[labels[i], labels[j]][f"{length + 1e-6:.2f}"] += 1

    phrases: list[tuple[float, int, int, str]] = []
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
            phrases.append((float(group[0]), rank[one], rank[other], phrase))
    return f"{formula} has {what} {'; '.join(phrase for *_, phrase in sorted(phrases))}."


def _find_bonds(cell: Structure) -> list[tuple[int, int, float]]:
    """Return site, bonded site and length in Å of all bonds, in both directions.

    The list is empty if CrystalNN finds none or fails, as on disordered sites.
    """
    from pymatgen.analysis.local_env import CrystalNN

    if not cell.is_ordered:
        return []
    try:
        graph = CrystalNN().get_bonded_structure(cell)
    except Exception:  # its errors have no common type; the nearest distances replace the bonds
        return []
    sites = range(len(cell))
    return [(i, to.index, to.dist) for i in sites for to in graph.get_connected_sites(i)]


def _find_nearest(cell: Structure) -> list[tuple[int, int, float]]:
    """Return site, nearest site and distance in Å, in both directions."""
    radius = 4.0
    centers, points, _, distances = cell.get_neighbor_list(radius)
    while len(np.unique(centers)) < len(cell):  # ends: an atom's own image is a neighbour
        radius *= 1.5
        centers, points, _, distances = cell.get_neighbor_list(radius)
    nearest = np.full(len(cell), np.inf)
    np.minimum.at(nearest, centers, distances)
    # From either end, so that the relation is mutual like a bond.
    keep = distances <= NEAREST_FACTOR * np.maximum(nearest[centers], nearest[points])
    chosen = (column[keep].tolist() for column in (centers, points, distances))
    return list(zip(*chosen, strict=True))


def _write_all(cell: Structure) -> str:
    if not cell.is_ordered:  # its own message names an attribute of pymatgen
        raise ValueError("it does not support partly occupied or mixed sites")
    return normalise_text(_load_robocrystallographer().describe(cell))


def _sort_sharing(match: re.Match[str]) -> str:
    *words, last = sorted(re.findall("corner|edge|face", match.group()))
    return f"{words[0]} and {last}" if len(words) == 1 else f"{', '.join(words)}, and {last}"


@cache
def _load_robocrystallographer() -> Robocrystallographer:
    """Return the one of this process; importing the package takes seconds."""
    with _skip_import_checks():
        from .robocrystallographer import Robocrystallographer

    return Robocrystallographer(symprec=SYMPREC)


@contextmanager
def _skip_import_checks() -> Iterator[None]:
    """Leave out what takes half of the time to import Robocrystallographer.

    The package inflect instruments its functions with checks of types, and pymatgen parses a BibTeX
    entry for each of AFLOW's prototypes. Neither changes a text.
    """
    checks: dict[tuple[str, str], Any] = {
        ("typeguard", "typechecked"): lambda target: target,
        ("pymatgen.util.provenance", "is_valid_bibtex"): lambda reference: True,
    }
    with ExitStack() as stack:
        for (module, name), substitute in checks.items():
            with suppress(ImportError):  # another version may do without
                found = import_module(module)
                stack.callback(setattr, found, name, getattr(found, name, None))
                setattr(found, name, substitute)
        yield
