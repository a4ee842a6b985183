"""Structures as JSON, in the form of pymatgen's ``Structure.as_dict``.

``Structure.from_dict`` decodes with monty, which imports any module and builds any object that the
text names. Text from outside is therefore read here: lattice, species and coordinates, checked
against a schema. Everything else in it is ignored.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pymatgen.core import Composition, Element, Lattice, Species, Structure

from ..errors import RhosightError

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Vector = tuple[_Number, _Number, _Number]


# What rounding explains: relative, of lengths, and Å, of positions
_TOLERANCE, _SHIFT = 0.01, 0.05


class _Part(BaseModel):
    """A part of a structure; names that it does not declare are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)


class _Species(_Part):
    element: str = Field(max_length=8)
    occu: float = Field(gt=0, le=1 + 1e-6)
    oxidation_state: _Number | None = None
    spin: _Number | None = None


class _Site(_Part):
    species: list[_Species] = Field(min_length=1)
    abc: _Vector
    xyz: _Vector | None = None


class _Lattice(_Part):
    matrix: tuple[_Vector, _Vector, _Vector]
    pbc: tuple[bool, bool, bool] = (True, True, True)
    a: _Number | None = None
    b: _Number | None = None
    c: _Number | None = None
    volume: _Number | None = None


class _Structure(_Part):
    lattice: _Lattice
    sites: list[_Site] = Field(min_length=1)
    charge: _Number | None = None


def parse_structure_json(text: str | bytes, where: str, formula: str | None = None) -> Structure:
    """Return the structure of a JSON text: lattice, species and coordinates.

    Parameters
    ----------
    text
        As ``json.dumps(structure.as_dict())`` writes it.
    where
        What error messages name, such as a file.
    formula
        That of the crystal, if it is known from elsewhere.

    Raises
    ------
    RhosightError
        If the text is not such a structure, or that of another compound.
    """
    try:
        # arrays of JSON are lists: strict tuples accept them in JSON only
        content = _Structure.model_validate_json(text)
        structure = _build_structure(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        reason = ": ".join(filter(None, (place, problem["msg"])))
        raise RhosightError(
            f"{where}: not a pymatgen Structure as JSON ({reason[:200]}); write "
            "json.dumps(structure.as_dict())"
        ) from None
    except ValueError as error:
        raise RhosightError(
            f"{where}: not a pymatgen Structure as JSON ({error}); name elements as in `Si`"
        ) from None
    _check_agreement(content, structure, where)
    if formula and not _has_formula(structure, formula):
        raise RhosightError(
            f"{where}: holds {structure.composition.reduced_formula}, but the formula is "
            f"{formula[:40]}; correct the wrong one"
        )
    return structure


def _check_agreement(content: _Structure, structure: Structure, where: str) -> None:
    """Raise if edges, volume or positions contradict the lattice vectors."""
    lattice = structure.lattice
    if not all(lattice.pbc):
        raise RhosightError(
            f"{where}: not periodic in all three directions (lattice.pbc); write a crystal"
        )
    for name in ("a", "b", "c", "volume"):
        said, its = getattr(content.lattice, name), getattr(lattice, name)
        if said is not None and abs(said - its) > _TOLERANCE * abs(its):
            raise RhosightError(
                f"{where}: lattice.{name} is {said:g}, but {its:g} by lattice.matrix; correct the "
                "wrong one"
            )
    for number, (site, coords) in enumerate(
        zip(content.sites, structure.cart_coords, strict=True), start=1
    ):
        if site.xyz is not None and np.abs(np.subtract(site.xyz, coords)).max() > _SHIFT:
            raise RhosightError(
                f"{where}: xyz and abc of site {number} are two positions; correct the wrong one"
            )


def _has_formula(structure: Structure, formula: str) -> bool:
    try:
        return Composition(formula).reduced_formula == structure.composition.reduced_formula
    except ValueError:
        return False


def _build_structure(content: _Structure) -> Structure:
    species = [{_make_species(one): one.occu for one in site.species} for site in content.sites]
    return Structure(
        Lattice(content.lattice.matrix, pbc=content.lattice.pbc),
        [next(iter(one)) if list(one.values()) == [1] else one for one in species],
        [site.abc for site in content.sites],
        charge=content.charge,
    )


def _make_species(species: _Species) -> Element | Species:
    if not Element.is_valid_symbol(species.element):
        raise ValueError(f"{species.element!r} is no element")
    if species.oxidation_state is None and species.spin is None:
        return Element(species.element)
    return Species(species.element, species.oxidation_state, species.spin)
