"""Checks of the space group of a CIF: given, fit for the cell, of a clear setting."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import spglib
from pymatgen.core import Element, Structure

from ..errors import RhosightError

if TYPE_CHECKING:
    from pymatgen.core.operations import SymmOp

# Fraction by which an operation may change lengths in the cell: files round edges and angles
_METRIC_TOLERANCE = 0.02
# Of translations, in fractions of the cell: files write 0.333 for a third
_SHIFT_TOLERANCE = 0.01
# Positions closer than this, in fractions of the cell, are one site
_SITE_TOLERANCE = 1e-3

_OPERATIONS = re.compile(r"_(symmetry_equiv_pos_as_xyz|space_group_symop_operation_xyz)_?$")
_NAME = re.compile(r"_(symmetry|space_group).*name_(h-m|h_m|hall).*$", re.IGNORECASE)
_TRIVIAL = re.compile(r"\s*P\s*1\s*", re.IGNORECASE)
_NUMBER = re.compile(r"_(space_group_it_number|symmetry_int_tables_number)_?$", re.IGNORECASE)
_CURE = "write the symmetry operations into the file (loop _space_group_symop_operation_xyz)"


def check_operations(
    block: Mapping[str, Any],
    structure: Structure,
    operations: Sequence[SymmOp],
    confirmed: bool,
    where: str,
) -> list[str]:
    """Check the symmetry by which a CIF's sites were completed, and return notes.

    Parameters
    ----------
    block
        Names and values of the CIF.
    structure
        The crystal that was read.
    operations
        The symmetry operations that were applied.
    confirmed
        Whether formula and formula units confirm the number of atoms.
    where
        What error messages name, such as the file.

    Raises
    ------
    RhosightError
        If the operations contradict the cell or each other, or if the file names a space group
        only, and the sites are another crystal in another of its settings.
    """
    rotations = np.rint([op.rotation_matrix for op in operations]).astype(int)
    shifts = np.array([op.translation_vector for op in operations])
    number = _get_number(block)
    if any(_OPERATIONS.match(name) and block[name] for name in block):
        _check_metric(rotations, structure, where)
        _check_group(rotations, shifts, where)
        order = {len(_get_hall(hall)[0]) for hall in _list_halls().get(number or 0, [])}
        if number and len(operations) not in order and not confirmed:
            return [
                f"{len(operations)} symmetry operations are listed, space group {number} has "
                f"{' or '.join(map(str, sorted(order)))}; the operations are used"
            ]
        return []
    names = _list_names(block)
    if number is None and not names:
        return [] if confirmed else ["no symmetry is given; all atoms of the cell must be listed"]
    _check_metric(rotations, structure, where)
    others = [str(number)] if number not in (None, 1) else []
    others += [name for name in names if not _TRIVIAL.fullmatch(name)]
    if len(operations) == 1 and others:
        raise RhosightError(f"{where}: space group {others[0]} has no known operations; {_CURE}")
    return _check_setting(block, structure, rotations, shifts, where)


def _list_names(block: Mapping[str, Any]) -> list[str]:
    """Return the symbols of the space group that a CIF gives."""
    texts = (str(block[name]).strip() for name in block if _NAME.match(name))
    return [text for text in texts if text not in ("", "?", ".")]


def _get_number(block: Mapping[str, Any]) -> int | None:
    for name, value in block.items():
        if _NUMBER.match(name) and isinstance(value, str) and value.strip().isdecimal():
            number = int(value)
            return number if 1 <= number <= 230 else None
    return None


def _check_metric(rotations: np.ndarray, structure: Structure, where: str) -> None:
    """Refuse operations that would deform the cell."""
    cell = structure.lattice.matrix
    metric = cell @ cell.T
    lengths = np.sqrt(np.diag(metric))
    for rotation in rotations:
        change = np.abs(rotation.T @ metric @ rotation - metric) / np.outer(lengths, lengths)
        if change.max() > _METRIC_TOLERANCE:
            raise RhosightError(
                f"{where}: the symmetry operations do not fit the cell (they would change its "
                f"edges or angles); correct the cell, or {_CURE}"
            )


def _check_group(rotations: np.ndarray, shifts: np.ndarray, where: str) -> None:
    """Refuse a list of operations that lacks products of its members."""
    if len(rotations) > 400:
        return
    known: dict[bytes, np.ndarray] = {}
    for rotation, shift in zip(rotations, shifts, strict=True):
        key = rotation.tobytes()
        known[key] = np.vstack([known.get(key, np.empty((0, 3))), shift])
    for rotation, shift in zip(rotations, shifts, strict=True):
        products = rotation @ rotations
        moved = shifts @ rotation.T + shift
        for product, position in zip(products, moved, strict=True):
            away = known.get(product.tobytes(), np.empty((0, 3))) - position
            if not len(away) or _wrap(away).max(axis=1).min() > 2 * _SHIFT_TOLERANCE:
                raise RhosightError(
                    f"{where}: the symmetry operations are not a group: one is missing, wrong or "
                    "superfluous; write the file again"
                )


def _check_setting(
    block: Mapping[str, Any],
    structure: Structure,
    rotations: np.ndarray,
    shifts: np.ndarray,
    where: str,
) -> list[str]:
    """Compare the crystal with those of the space group's other origins and axes."""
    number, hall = _identify(rotations, shifts, _get_number(block))
    if number is None or hall is None:
        return []
    if _get_number(block) not in (None, number):
        raise RhosightError(
            f"{where}: the space group has the number {_get_number(block)}, but its symbol "
            f"{_list_names(block)[0]} is that of number {number}; correct one of them"
        )
    sites, species = _read_sites(block, structure)
    if sites is None:
        return []
    short = _get_type(hall)
    counts = {}
    for other in _list_halls()[number]:
        if _get_type(other)[0] != short[0] or (other != hall and not _fits(other, structure)):
            continue
        if _get_type(other)[1][:1] in ("1", "2", "H", "R") or other == hall:
            counts[_get_type(other)[1]] = _expand(sites, species, *_get_hall(other))
    own = counts.pop(short[1])
    if any(not _is_same(own, other, structure) for other in counts.values()):
        raise RhosightError(
            f"{where}: the space group {short[0]} ({number}) has several origins or axes, and the "
            f"sites are another crystal with each; {_CURE}"
        )
    if len(_list_halls()[number]) > 1 and not _list_names(block):
        return [
            f"the space group is given by its number {number} alone; its standard setting "
            f"{short[0]} is assumed"
        ]
    return []


def _identify(
    rotations: np.ndarray, shifts: np.ndarray, number: int | None
) -> tuple[int | None, int | None]:
    """Return number and Hall number of the operations of a space group."""
    keys = _make_keys(rotations, shifts)
    numbers = [number] if number else range(1, 231)
    for candidate in numbers:
        for hall in _list_halls()[candidate]:
            if len(_get_hall(hall)[0]) == len(rotations) and _make_keys(*_get_hall(hall)) == keys:
                return candidate, hall
    return (None, None) if number is None else _identify(rotations, shifts, None)


def _make_keys(rotations: np.ndarray, shifts: np.ndarray) -> set[tuple[int, ...]]:
    steps = np.rint(shifts * 24).astype(int) % 24
    return {(*r.ravel().tolist(), *t.tolist()) for r, t in zip(rotations, steps, strict=True)}


def _read_sites(
    block: Mapping[str, Any], structure: Structure
) -> tuple[np.ndarray | None, list[str]]:
    """Return the listed positions and their labels."""
    try:
        columns = [
            [float(re.sub(r"\(.*", "", text)) for text in block[f"_atom_site_fract_{axis}"]]
            for axis in "xyz"
        ]
    except ValueError:
        return None, []
    symbols = block.get("_atom_site_type_symbol", block["_atom_site_label"])
    return np.array(columns).T, [re.sub(r"[^A-Za-z].*", "", symbol) for symbol in symbols]


def _expand(
    sites: np.ndarray, species: list[str], rotations: np.ndarray, shifts: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the positions of each element in the whole cell."""
    cell: dict[str, np.ndarray] = {}
    for site, symbol in zip(sites, species, strict=True):
        images = (rotations @ site + shifts) % 1
        unique = cell.get(symbol, np.empty((0, 3)))
        for image in images:
            if not len(unique) or _wrap(unique - image).max(axis=1).min() > _SITE_TOLERANCE:
                unique = np.vstack([unique, image])
        cell[symbol] = unique
    return cell


def _is_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray], cell: Structure) -> bool:
    """Return whether two sets of positions are one crystal."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if {k: len(v) for k, v in one.items()} != {k: len(v) for k, v in other.items()}:
        return False
    first, second = (
        Structure(
            cell.lattice,
            # the elements do not matter here, only which atoms are of the same one
            [Element.from_Z(z) for z, v in enumerate(part.values(), start=1) for _ in v],
            np.vstack(list(part.values())),
        )
        for part in (one, other)
    )
    matcher = StructureMatcher(primitive_cell=False, scale=False, stol=0.05)
    return bool(matcher.fit(first, second))


def _fits(hall: int, structure: Structure) -> bool:
    try:
        _check_metric(_get_hall(hall)[0], structure, "")
    except RhosightError:
        return False
    return True


def _wrap(difference: np.ndarray) -> np.ndarray:
    return np.abs(difference - np.rint(difference))


@cache
def _list_halls() -> dict[int, list[int]]:
    """Return space-group number → Hall numbers of its settings."""
    halls: dict[int, list[int]] = {}
    for hall in range(1, 531):
        halls.setdefault(_get_spglib_type(hall).number, []).append(hall)
    return halls


def _get_type(hall: int) -> tuple[str, str]:
    """Return the symbol and the choice of origin or axes of a Hall number."""
    kind = _get_spglib_type(hall)
    return kind.international_short, kind.choice


@cache
def _get_hall(hall: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations and translations of a Hall number."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        found: Any = spglib.get_symmetry_from_database(hall)
    return found["rotations"], found["translations"]


@cache
def _get_spglib_type(hall: int) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return spglib.get_spacegroup_type(hall)
