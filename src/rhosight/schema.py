"""The Parquet columns of a dataset: names, types, units, roles; and the check that a table has
them.

One row is one material. Grids are stored as flat lists in C order of ``grid[i, j, k]``, e/Å³, with
their shape beside them; the structure is the cell of these grids. Every field carries its
description, unit and role as Arrow field metadata, so that a file explains itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .density import STORED_KINDS
from .errors import RhosightError

SCHEMA_VERSION = "1"

Role = Literal["identity", "structure", "density", "target", "label", "text", "record"]

_GRID = pa.list_(pa.float32())
_JSON = pa.string()


@dataclass(frozen=True)
class Column:
    """One known column. ``unit`` is empty for what has none; ``required`` columns have no nulls."""

    name: str
    type: pa.DataType
    role: Role
    description: str
    unit: str = ""
    required: bool = False


COLUMNS: tuple[Column, ...] = (
    Column("material_id", pa.string(), "identity", "unique name of the material", required=True),
    Column("formula", pa.string(), "identity", "reduced formula", required=True),
    Column(
        "spacegroup_number", pa.int32(), "identity", "spglib, symprec 0.1 Å unless served so",
        required=True,
    ),
    Column("nsites", pa.int32(), "identity", "atoms in the cell of the grids", required=True),
    Column("cubic_lattice_constant", pa.float64(), "label", "edge of the cubic cell", "Å"),
    Column(
        "structure", _JSON, "structure", "pymatgen Structure dict of the cell of the grids",
        "lattice in Å, sites in fractional coordinates", required=True,
    ),
    Column("grid", pa.list_(pa.int32()), "structure", "grid points (nx, ny, nz)", required=True),
    Column("total", _GRID, "density", "charge density of the converged SCF", "e/Å³"),
    Column("difference", _GRID, "density", "total minus superposed free atoms", "e/Å³"),
    Column("spin", _GRID, "density", "spin-up minus spin-down density", "e/Å³"),
    Column("formation_energy_per_atom", pa.float64(), "target", "formation energy", "eV/atom"),
    Column("efermi", pa.float64(), "target", "Fermi energy", "eV"),
    Column(
        "bulk_modulus_vrh", pa.float64(), "target", "bulk modulus, Voigt-Reuss-Hill average", "GPa"
    ),
    Column("bulk_modulus_voigt", pa.float64(), "label", "upper bound, as served", "GPa"),
    Column("bulk_modulus_reuss", pa.float64(), "label", "lower bound, as served", "GPa"),
    Column("band_gap", pa.float64(), "label", "band gap; never an input", "eV"),
    Column("dft_energy", pa.float64(), "label", "energy of the density's SCF", "eV per cell"),
    Column("dft_efermi", pa.float64(), "label", "Fermi level of the density's SCF", "eV"),
    Column("dft_magnetization", pa.float64(), "label", "moment of the SCF", "μB per cell"),
    Column("dft_spin_polarised", pa.bool_(), "label", "whether the SCF was spin-polarised"),
    Column("dft_kpoints", pa.string(), "label", "k-point grid of the SCF"),
    Column("dft_cutoff", pa.float64(), "label", "plane-wave cut-off of the SCF", "eV"),
    Column("text_formula", pa.string(), "text", "description of extent `formula`"),
    Column("text_keywords", pa.string(), "text", "description of extent `keywords`"),
    Column("text_all", pa.string(), "text", "description of extent `all`"),
    Column(
        "masked", _JSON, "record", "labels set to missing: {target: {value as served, reason}}"
    ),
    Column(
        "provenance", _JSON, "record",
        "of the densities: code, version, functional, notes on kinds, source, licence, integrals",
        "integrals over the cell in electrons",
    ),
)  # fmt: skip

KNOWN: dict[str, Column] = {column.name: column for column in COLUMNS}

TARGETS: dict[str, str] = {c.name: c.unit for c in COLUMNS if c.role == "target"}
"""The targets of the paper and their units. A dataset may carry others."""

EXTENTS: tuple[str, ...] = tuple(c.name[len("text_") :] for c in COLUMNS if c.role == "text")
"""How much a text says: ``text_<extent>`` are the columns."""


def make_field(name: str, type_: pa.DataType, unit: str = "") -> pa.Field:
    """The Arrow field of a column, with role, description and unit as its metadata.

    A known column is as the schema has it. Of the others, a numeric one is a target (float64, of
    the given unit), anything else a label.
    """
    column = KNOWN.get(name)
    if column is None:
        number = _is_number(type_)
        role: Role = "target" if number else "label"
        column = Column(name, pa.float64() if number else type_, role, "", unit)
    about = {"role": column.role, "description": column.description, "unit": column.unit}
    return pa.field(name, column.type, not column.required, about)


def role_of(field: pa.Field) -> str:
    """Role of a column made by :func:`make_field`."""
    return (field.metadata or {}).get(b"role", b"label").decode()


def unit_of(field: pa.Field) -> str:
    """Unit of a column; empty if it has none or none is known."""
    return (field.metadata or {}).get(b"unit", b"").decode()


def columns_with(schema: pa.Schema, *roles: Role) -> list[str]:
    """Names of the columns that play one of these roles, in the table's order."""
    return [field.name for field in schema if role_of(field) in roles]


def file_metadata(schema: pa.Schema, about: Mapping[str, str]) -> dict[str, str]:
    """What stands in the file's own metadata: schema version, all units, and ``about`` (name,
    attribution, licence, ...)."""
    units = {field.name: unit_of(field) for field in schema if unit_of(field)}
    version = {"schema_version": SCHEMA_VERSION}
    return {**about, **version, "units": json.dumps(units, ensure_ascii=False)}


def validate(table: pa.Table, where: str) -> pa.Table:
    """Check a table against the schema and bring it to the schema's types.

    Parameters
    ----------
    table
        One row a material. Types that convert without loss of meaning are accepted (large lists,
        float64 grids, float32 targets).
    where
        What messages call the table: the file.

    Returns
    -------
    pa.Table
        Known columns in the schema's order and types, then the others; every field with its role
        and unit.

    Raises
    ------
    RhosightError
        For missing columns, types that do not convert, empty or repeated ids, a grid whose shape
        contradicts its length, infinite targets, or a file of a later schema version.
    """
    _check_version(table.schema.metadata or {}, where)
    _check_present(table.column_names, where)
    names = [c.name for c in COLUMNS if c.name in table.column_names]
    names += [name for name in table.column_names if name not in KNOWN]
    fields = [_known_field(table.schema.field(name)) for name in names]
    arrays = [_cast(table[field.name], field, where) for field in fields]
    schema = pa.schema(fields)
    about = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    about.pop("pandas", None)  # pandas' own description of its frame, stale by now
    checked = pa.table(arrays, schema=schema.with_metadata(file_metadata(schema, about)))
    _check_ids(checked, where)
    _check_grids(checked, where)
    _check_targets(checked, where)
    return checked


def _known_field(field: pa.Field) -> pa.Field:
    """The field with role and unit; a file can say that an unknown number is a mere label."""
    if field.name not in KNOWN and (field.metadata or {}).get(b"role") == b"label":
        return field
    return make_field(field.name, field.type, unit_of(field))


def _check_version(metadata: Mapping[bytes, bytes], where: str) -> None:
    version = metadata.get(b"schema_version", SCHEMA_VERSION.encode()).decode()
    if version != SCHEMA_VERSION:
        raise RhosightError(
            f"{where}: schema version {version}, this rhosight reads {SCHEMA_VERSION}; "
            "update rhosight or write the file again with this version"
        )


def _check_present(names: list[str], where: str) -> None:
    missing = [c.name for c in COLUMNS if c.required and c.name not in names]
    if missing:
        raise RhosightError(
            f"{where}: no column {', '.join(missing)}; make datasets with rhosight.dataset.pack"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise RhosightError(f"{where}: column {', '.join(repeated)} stands twice; rename one")
    if not set(STORED_KINDS) & set(names):
        raise RhosightError(
            f"{where}: no density column; give at least one of {', '.join(STORED_KINDS)}"
        )


def _cast(array: pa.ChunkedArray, field: pa.Field, where: str) -> pa.ChunkedArray:
    if not field.nullable and array.null_count:
        raise RhosightError(
            f"{where}: {array.null_count} materials have no `{field.name}`; fill it or drop them"
        )
    if array.type == field.type:
        return array
    try:
        # float64 → float32 rounds, which is meant; everything else must convert exactly
        safe = role_of(field) != "density"
        return array.cast(field.type, safe=safe)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise RhosightError(
            f"{where}: column `{field.name}` is {array.type}, not {field.type} as the schema has it"
        ) from error


def _check_ids(table: pa.Table, where: str) -> None:
    counts = pc.value_counts(table["material_id"].combine_chunks())
    repeated = [c["values"].as_py() for c in counts if c["counts"].as_py() > 1]
    if repeated:
        raise RhosightError(
            f"{where}: material_id {', '.join(sorted(repeated)[:5])} stands more than once; "
            "an id names one material"
        )


def _check_grids(table: pa.Table, where: str) -> None:
    """The product of ``grid`` is the length of every density."""
    ids = table["material_id"]
    shapes = table["grid"].to_pylist()
    wrong = [i for i, s in enumerate(shapes) if len(s) != 3 or None in s or min(s) < 1]
    if wrong:
        raise RhosightError(
            f"{where}: `grid` of {ids[wrong[0]]} is {shapes[wrong[0]]}, not three positive integers"
        )
    sizes = np.array([s[0] * s[1] * s[2] for s in shapes], dtype=np.int64)
    for kind in columns_with(table.schema, "density"):
        lengths = pc.fill_null(pc.list_value_length(table[kind]).cast(pa.int64()), -1).to_numpy()
        wrong = np.flatnonzero((lengths != sizes) & (lengths != -1))
        if len(wrong):
            i = int(wrong[0])
            grid = "×".join(map(str, shapes[i]))
            raise RhosightError(
                f"{where}: `{kind}` of {ids[i]} holds {lengths[i]} values, its grid {grid} needs "
                f"{sizes[i]}; write the file again"
            )


def _check_targets(table: pa.Table, where: str) -> None:
    for name in columns_with(table.schema, "target"):
        bad = np.flatnonzero(np.isinf(table[name].to_numpy()))
        if len(bad):
            raise RhosightError(
                f"{where}: `{name}` of {table['material_id'][int(bad[0])]} is infinite; leave a "
                "missing label empty"
            )


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_decimal(type_)
