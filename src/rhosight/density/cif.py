"""Crystals in CIF files, and what such a file says about itself.

pymatgen parses the file. It repairs what it can: it leaves out sites that it cannot read, takes P 1
where no symmetry is given, and one of two origins where none is named. A file that then contradicts
itself describes another crystal than the one that is read, so it is refused; what is only doubtful
becomes a note.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core import Composition, Element, Structure

from ..errors import RhosightError, first_line
from .crystals import check_crystal
from .spacegroups import check_operations

if TYPE_CHECKING:
    from pymatgen.io.cif import CifParser

_TOLERANCE = 0.01
"""Largest relative deviation of formula, number of atoms and volume from what the file says."""

_DENSITY_TOLERANCE = 0.05  # files round atomic masses, and measure some densities
_BLOCK = re.compile(r"^\s*data_(\S*)", re.MULTILINE | re.IGNORECASE)
_CELL = tuple(f"_cell_{name}" for name in ("length_a", "length_b", "length_c")) + tuple(
    f"_cell_angle_{name}" for name in ("alpha", "beta", "gamma")
)
_POSITIONS = tuple(f"_atom_site_fract_{axis}" for axis in "xyz")
# Vacancies, dummies, centroids, ghost atoms, lone pairs, peaks of a difference map
_VACANCIES = ("va", "vac", "vacancy", "x", "xx", "du", "dum", "dummy", "cg", "bq", "gh", "lp", "q")
# Groups of atoms that stand for one site where no _atom_site_type_symbol names an element
_GROUP = re.compile(
    r"(OH|O-H|[Ww]at|H[23]O|CH[2-4]|NH[2-4]|NO[23]|SO4|PO4|C[Ll]O4|BF4|BH4|PF6)(?![a-z])"
)
# An element with or without a charge, a spin or a kind of atom, as in Mg2+, O-2, Fe2.67+, Mg++,
# Mg(II), Fe3+,spin=5 and C_sp2
_TYPE = re.compile(r"[A-Za-z]+(\d*\.?\d*[+-]*|[+-]\d*\.?\d*|\([IVX]+\)|_\w+)(,spin=[-+.\d]+)?$")
_VALENCE = ("cval", "siva")  # scattering factors of C and Si, as SHELX names them
# Rounds 0.33 and 0.67 to thirds; pymatgen's own tolerance needs four digits
_THIRDS = 0.004
# Warnings of pymatgen about what it does right, and about what is checked here
_EXPECTED = re.compile(
    r"rounded to ideal values|No _symmetry_equiv_pos|1-line symmetry|Issues encountered"
    r"|stoichiometry|Missing elements|missing elements|parsing CIF|no structures|implicit hydrogens"
)


def parse_cif(text: str, where: str, max_sites: int | None = None) -> tuple[Structure, list[str]]:
    """Return the crystal of a CIF, and notes on what is doubtful.

    Parameters
    ----------
    text
        The content of the file.
    where
        What error messages name, such as the file.
    max_sites
        Largest number of listed sites; pymatgen compares all pairs of them.

    Raises
    ------
    RhosightError
        If the file cannot be read, holds no or several structures, contradicts itself, or its
        crystal is not complete and ordered.
    """
    text = _isolate_block(text.removeprefix("\ufeff"), where)
    block, parser, structure, notes = _parse(text, where, max_sites)
    if not _is_crystal(structure):
        other = _parse(text, where, max_sites, frac_tolerance=_THIRDS)
        if _is_crystal(other[2]):
            block, parser, structure, notes = other
            notes.append("positions that are nearly 1/3 or 2/3 were read as thirds")
    confirmed = _check_content(block, structure, where)
    notes += check_operations(block, structure, parser.symmetry_operations, confirmed, where)
    notes += _note_labels(block, structure, notes) + _note_doubts(block, structure, confirmed)
    check_crystal(structure, where)
    # a new object: the labels and properties of pymatgen's are not needed
    plain = Structure(structure.lattice, structure.species, structure.frac_coords)
    return plain, notes


def _parse(
    text: str, where: str, max_sites: int | None, **tolerances: float
) -> tuple[dict[str, Any], CifParser, Structure, list[str]]:
    """Return data block, pymatgen's parser, crystal and pymatgen's warnings."""
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        parser = _try(where, lambda: CifParser.from_str(text, check_cif=False, **tolerances))
        block = _select_block(parser.as_dict(), where, max_sites)
        _check_sites(block, where)
        structure = _try(
            where,
            lambda: parser.parse_structures(False, on_error="raise")[0].remove_oxidation_states(),
        )
    said = [*parser.warnings, *(str(warning.message) for warning in caught)]
    notes = [line for line in dict.fromkeys(map(_shorten, said)) if not _EXPECTED.search(line)]
    return block, parser, structure, notes


def _is_crystal(structure: Structure) -> bool:
    try:
        check_crystal(structure, "")
    except RhosightError:
        return False
    return True


def _try(where: str, parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except MemoryError:
        raise
    except Exception as error:  # the parser raises whatever its dictionaries and regexes raise
        reason = "it contains no structure" if isinstance(error, KeyError) else first_line(error)
        raise RhosightError(
            f"{where}: not a readable CIF file ({reason}); write it again, for example with VESTA"
        ) from error


def _isolate_block(text: str, where: str) -> str:
    """Return the part of a text that is the only block with a structure."""
    starts = [*_BLOCK.finditer(text)]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    parts = [
        (match, end)
        for match, end in zip(starts, ends, strict=False)
        if "_atom_site_fract_x" in text[match.end() : end]
    ]
    if len(parts) > 1:
        names = ", ".join(match[1] for match, _ in parts[:3])
        raise RhosightError(
            f"{where}: contains {len(parts)} structures ({names}); write each into a file of its "
            "own"
        )
    return text[parts[0][0].start() : parts[0][1]] if parts and len(starts) > 1 else text


def _select_block(blocks: dict[str, Any], where: str, max_sites: int | None) -> dict[str, Any]:
    """Return the block that holds the structure."""
    found = [block for block in blocks.values() if "_atom_site_label" in block]
    if not found:
        raise RhosightError(
            f"{where}: not a readable CIF file (it contains no atom sites); write it again, for "
            "example with VESTA"
        )
    block = found[0]
    labels = _list_values(block, "_atom_site_label")
    if max_sites is not None and len(labels) > max_sites:
        raise RhosightError(
            f"{where}: {len(labels)} atoms are listed, at most {max_sites} are read"
        )
    missing = [name for name in (*_CELL, *_POSITIONS) if name not in block]
    if missing:
        raise RhosightError(
            f"{where}: not a readable CIF file (no {missing[0]}); write it again, for example with "
            "VESTA"
        )
    return block


def _check_sites(block: dict[str, Any], where: str) -> None:
    """Refuse sites that pymatgen would leave out or replace."""
    labels = _list_values(block, "_atom_site_label")
    types = _list_values(block, "_atom_site_type_symbol")
    symbols = types or labels
    flags = _list_values(block, "_atom_site_calc_flag") or [""] * len(labels)
    occupancies = _list_values(block, "_atom_site_occupancy") or ["1"] * len(labels)
    hydrogens = _list_values(block, "_atom_site_attached_hydrogens") or ["0"] * len(labels)
    for label, symbol, flag, occupancy, attached in zip(
        labels, symbols, flags, occupancies, hydrogens, strict=False
    ):
        name = _get_letters(symbol).lower()
        if name in _VACANCIES or flag.lower() == "dum":
            raise RhosightError(f"{where}: site {label} is a dummy or a vacancy; remove its line")
        is_element = _is_element(name) or name in _VALENCE
        if types:
            is_element = is_element and bool(_TYPE.match(symbol))
        else:
            is_element = is_element or _begins_with_element(symbol) or _is_element(name[:1])
            is_element = is_element and not _GROUP.match(symbol)
        if not is_element:
            raise RhosightError(
                f"{where}: site {label} is {symbol!r}, not one element; list each atom on a line "
                "of its own"
            )
        _check_occupancy(occupancy, label, where)
        if _to_number(attached) not in (None, 0):
            raise RhosightError(
                f"{where}: {attached} hydrogen atoms at site {label} are not listed; list each "
                "atom, or set _atom_site_attached_hydrogens to 0 if they are"
            )
    _check_alternatives(block, where)


def _check_alternatives(block: dict[str, Any], where: str) -> None:
    """Refuse sites of different disorder groups of one assembly."""
    groups = _list_values(block, "_atom_site_disorder_group")
    assemblies = _list_values(block, "_atom_site_disorder_assembly") or [""] * len(groups)
    seen: dict[str, str] = {}
    for group, assembly in zip(groups, assemblies, strict=False):
        if group in (".", "?", "0"):
            continue
        if seen.setdefault(assembly, group) != group:
            raise RhosightError(
                f"{where}: its sites are alternatives of each other (disorder groups "
                f"{seen[assembly][:20]} and {group[:20]}); keep the sites of one group"
            )


def _check_occupancy(text: str, label: str, where: str) -> None:
    """Refuse occupancies that pymatgen would take for 0 or 1."""
    value = _to_number(text)
    if value == 0:
        raise RhosightError(f"{where}: site {label} has occupancy 0; remove its line")
    if text != "?" and (value is None or not 0 < value <= 1):
        raise RhosightError(
            f"{where}: site {label} has occupancy {text[:20]!r}; write 1, or a fraction"
        )


def _check_content(block: dict[str, Any], structure: Structure, where: str) -> bool:
    """Check formula, formula units and volume; return whether they confirm the atoms."""
    volume = _to_number(_get_text(block, "_cell_volume"))
    if volume is not None and abs(structure.volume / max(volume, 1e-9) - 1) > _TOLERANCE:
        raise RhosightError(
            f"{where}: _cell_volume is {volume:g} Å³, the cell has {structure.volume:.2f} Å³; "
            "correct the wrong one"
        )
    said = _parse_formula(_get_text(block, "_chemical_formula_sum"))
    its = _count_elements(structure.composition)
    if said is not None and not _is_same_ratio(_count_elements(said), its):
        raise RhosightError(
            f"{where}: _chemical_formula_sum is {said.formula}, the sites are "
            f"{structure.composition.formula}; add the missing atoms, or correct the formula"
        )
    units = _to_number(_get_text(block, "_cell_formula_units_Z"))
    if not units:
        return False
    if said is None:
        _, factor = structure.composition.get_reduced_formula_and_factor()
        if abs(factor / units - round(factor / units)) > _TOLERANCE:
            raise RhosightError(
                f"{where}: _cell_formula_units_Z is {units:g}, but {structure.composition.formula} "
                "are read; check the symmetry operations, or correct Z"
            )
        return False
    atoms, expected = structure.composition.num_atoms, units * said.num_atoms
    # pymatgen writes the content of the cell as the formula, and its largest common factor as Z
    if said.get_reduced_formula_and_factor()[1] == units and atoms == said.num_atoms:
        return True
    if abs(atoms / expected - 1) > _TOLERANCE:
        raise RhosightError(
            f"{where}: {units:g} formula units of {said.formula} are {expected:g} atoms, but "
            f"{atoms:g} are read; check the symmetry operations and the origin of the space "
            "group, or correct _cell_formula_units_Z"
        )
    return True


def _note_labels(block: dict[str, Any], structure: Structure, notes: list[str]) -> list[str]:
    """Return a note on a label without an element, unless pymatgen has warned."""
    if "_atom_site_type_symbol" in block:
        return []
    for site in structure:
        said = any(f"{site.label} parsed as" in note for note in notes)
        known = _is_element(_get_letters(site.label)) or _begins_with_element(site.label)
        if not (said or known):
            return [f"site {site.label} names no element; it was read as {site.specie}"]
    return []


def _note_doubts(block: dict[str, Any], structure: Structure, confirmed: bool) -> list[str]:
    """Return notes on fields that contradict the sites, perhaps by carelessness."""
    notes = []
    for name in ("_chemical_formula_structural", "_chemical_formula_moiety"):
        text = _get_text(block, name)
        # "2(H2 O), Cl" counts units, which the formula of a composition does not
        said = None if re.search(r",|\b\d+\(", text) else _parse_formula(text)
        its = _count_elements(structure.composition)
        if said is not None and not _is_same_ratio(_count_elements(said), its):
            notes.append(f"{name} is {text}, the sites are {structure.composition.reduced_formula}")
    density = _to_number(_get_text(block, "_exptl_crystal_density_diffrn"))
    if density and abs(structure.density / density - 1) > _DENSITY_TOLERANCE:
        notes.append(
            f"_exptl_crystal_density_diffrn is {density:g} g/cm³, the atoms in the cell have "
            f"{structure.density:.2f} g/cm³"
        )
    numbers = map(_to_number, _list_values(block, "_atom_site_symmetry_multiplicity"))
    sites = [number or 0 for number in numbers]
    if all(sites) and sites and sum(sites) != len(structure) and not confirmed:
        notes.append(
            f"_atom_site_symmetry_multiplicity sums up to {sum(sites):g} atoms, but "
            f"{len(structure)} are read"
        )
    labels = _list_values(block, "_atom_site_label")
    symbols = _list_values(block, "_atom_site_type_symbol")
    for label, symbol in zip(labels, symbols, strict=False):
        name = label.rstrip("0123456789")
        if Element.is_valid_symbol(name) and not _get_letters(name).startswith(
            _get_letters(symbol)
        ):
            notes.append(f"site {label} is {symbol}, by its _atom_site_type_symbol")
            break
    if (_to_number(_get_text(block, "_cell_modulation_dimension")) or 0) > 0:
        notes.append("the structure is modulated; its average was read")
    return notes


def _get_letters(symbol: str) -> str:
    """Return the element of a type symbol, such as ``Mg`` of ``Mg2+``; D is hydrogen."""
    letters = re.match(r"[A-Za-z]*", symbol.strip())
    name = letters[0].capitalize() if letters else ""
    return "H" if name == "D" else name


def _begins_with_element(label: str) -> bool:
    """Return whether a label begins with an element, as ``AlT1`` and ``OA1`` do."""
    match = re.match(r"([A-Z][a-z])(?![a-z])|([A-Z])(?=[A-GI-Z])", label.strip())
    return match is not None and _is_element(match[0])


def _is_element(letters: str) -> bool:
    return Element.is_valid_symbol(letters.capitalize())


def _parse_formula(text: str) -> Composition | None:
    try:
        composition = Composition(text.replace(",", " ").strip())
    except (ValueError, TypeError, KeyError):
        return None
    return composition if composition.num_atoms > 0 else None


def _count_elements(composition: Composition) -> dict[str, float]:
    """Return the share of each element; isotopes of hydrogen are hydrogen."""
    shares: dict[str, float] = {}
    for element, amount in composition.element_composition.items():
        symbol = "H" if element.symbol in ("D", "T") else element.symbol
        shares[symbol] = shares.get(symbol, 0.0) + amount / composition.num_atoms
    return shares


def _is_same_ratio(one: dict[str, float], other: dict[str, float]) -> bool:
    return one.keys() == other.keys() and all(
        abs(one[symbol] / other[symbol] - 1) < 2 * _TOLERANCE for symbol in one
    )


def _list_values(block: dict[str, Any], name: str) -> list[str]:
    values = block.get(name, [])
    return [values] if isinstance(values, str) else [str(value) for value in values]


def _get_text(block: dict[str, Any], name: str) -> str:
    return " ".join(_list_values(block, name)).strip()


def _to_number(text: str) -> float | None:
    """Return a number without its uncertainty; None for ``?``, ``.`` and other text."""
    match = re.match(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?:\(\d*\))?\s*$", text)
    return float(match[1]) if match else None


def _shorten(line: str) -> str:
    return " ".join(line.split())[:200]
