"""Dataset: materials with densities or without, labels and texts, in memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pymatgen.core import Structure

from ..density.bare_crystal import BareCrystal, Crystal, require_density
from ..density.charge_density import ChargeDensity
from ..density.crystals import check_crystal
from ..density.structure_json import parse_structure_json
from ..errors import RhosightError
from ..inputs.image import ImageSettings
from . import schema
from .lazy import Lazy
from .parquet import read_table, write_table
from .schema import TARGETS
from .table import build_table


@dataclass(frozen=True)
class Material:
    """Hold one material of a dataset.

    Attributes
    ----------
    material_id, formula
        Its id, and its reduced formula.
    crystal
        Structure and grids (e/Å³), decoded from the dataset; the grids are read-only. A material
        without density has no grids.
    targets
        Target → value in the dataset's units, NaN if missing or masked.
    texts
        Extent → text, or None.
    """

    material_id: str
    formula: str
    crystal: Crystal = field(repr=False)
    targets: dict[str, float]
    texts: dict[str, str | None]

    @property
    def density(self) -> ChargeDensity:
        """Charge density.

        Raises
        ------
        RhosightError
            If the material has none.
        """
        return require_density(self.crystal)

    @property
    def structure(self) -> Structure:
        """Structure of the crystal, in the cell of the grids if there are any."""
        return self.crystal.structure


class Dataset:
    """Hold materials in memory, like a list; densities are decoded on access.

    Materials need no density: models of structures and texts read those without one.

    ``dataset["mp-149"]`` and ``dataset[0]`` return a :class:`Material`. A slice, a list of ids or
    of positions, and a mask return the :class:`Dataset` of these materials, which shares the
    memory. :func:`load_dataset`, :meth:`from_parquet` and :meth:`from_densities` create datasets.

    Parameters
    ----------
    table
        As :func:`rhosight.dataset.schema.validate` returns it.
    rows
        Positions of its rows to use, in this order; all by default.
    """

    def __init__(self, table: pa.Table, rows: np.ndarray | None = None) -> None:
        self._table = table
        self._rows = np.arange(len(table)) if rows is None else rows

    @classmethod
    def from_parquet(cls, path: str | os.PathLike) -> Dataset:
        """Read a Parquet file, or a folder of such files.

        The columns are those of :mod:`rhosight.dataset.schema`.

        Raises
        ------
        RhosightError
            If there is no such file, or it is not a valid dataset.
        """
        return cls(schema.validate(read_table(Path(path)), str(path)))

    @classmethod
    def from_densities(
        cls,
        densities: Iterable[Crystal],
        labels: pd.DataFrame | None = None,
        texts: Mapping[str, Mapping[str, str | None]] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Create a dataset, and mask impossible moduli (:func:`mask_labels`).

        Parameters
        ----------
        densities
            Their names become the material ids. Grids are stored as float32. A
            :class:`rhosight.density.bare_crystal.BareCrystal` is a material without density.
        labels
            Indexed by material_id. Numeric columns that the schema does not know become targets.
        texts
            Material id → extent → text.
        about
            ``name``, ``attribution``, ``licence``, ...: stored in the file's metadata. ``units``
            is a dict with the units of targets that the schema does not know.
        """
        return cls(build_table(densities, labels, texts, about))

    def to_parquet(self, path: str | os.PathLike, compression_level: int = 9) -> None:
        """Write the materials to a Parquet file, atomically; same content, same bytes.

        ``compression_level`` is zstd's, 1 to 22.

        Raises
        ------
        RhosightError
            If the file cannot be written.
        """
        table = schema.validate(self._table.take(self._rows), str(path))
        write_table(table, Path(path), compression_level)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Material]:
        return (self._material(i) for i in range(len(self)))

    def __contains__(self, material_id: object) -> bool:
        return material_id in self.table.index

    @overload
    def __getitem__(self, key: str | int | np.integer) -> Material: ...

    @overload
    def __getitem__(
        self, key: slice | list[Any] | Sequence[int] | np.ndarray | pd.Series | pd.Index
    ) -> Dataset: ...

    def __getitem__(self, key: Any) -> Material | Dataset:
        if isinstance(key, str):
            return self._material(self._positions([key])[0])
        if isinstance(key, int | np.integer):
            return self._material(range(len(self))[key])
        return Dataset(self._table, self._rows[self._positions(key)])

    def __repr__(self) -> str:
        from .notebook import render_text

        return render_text(self)

    def _repr_html_(self) -> str:
        from .notebook import render_html

        return render_html(self)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Formula, space group, targets and labels, without grids; indexed by material_id."""
        names = schema.columns_with(self._table.schema, "identity", "target", "label")
        frame = self._table.select(names).take(self._rows).to_pandas(ignore_metadata=True)
        return frame.set_index("material_id")

    @property
    def ids(self) -> list[str]:
        """Material ids."""
        return self.table.index.to_list()

    @property
    def targets(self) -> pd.DataFrame:
        """Shape (materials, targets), in :attr:`units`; NaN if missing or masked."""
        return self.table[schema.columns_with(self._table.schema, "target")]

    @property
    def units(self) -> dict[str, str]:
        """Target → unit; an empty text stands for an unknown unit."""
        fields = self._table.schema
        return {str(name): schema.unit_of(fields.field(name)) for name in self.targets}

    @cached_property
    def texts(self) -> pd.DataFrame:
        """Shape (materials, extents): descriptions, None if missing."""
        names = schema.columns_with(self._table.schema, "text")
        columns = {name.removeprefix("text_"): self._strings(name) for name in names}
        return pd.DataFrame(columns, index=self.table.index, dtype=object)

    @cached_property
    def masked(self) -> pd.DataFrame:
        """Labels set to missing: material_id, target, value (as served, GPa), reason."""
        has_masked = "masked" in self._table.column_names
        rows = [
            {"material_id": material_id, "target": target, **record}
            for number, material_id in enumerate(self.ids if has_masked else ())
            for target, record in self._read_json("masked", number).items()
        ]
        return pd.DataFrame(rows, columns=["material_id", "target", "value", "reason"])

    @property
    def kinds(self) -> list[str]:
        """Kinds of density that at least one material has."""
        rows = pa.array(self._rows)
        return [
            kind
            for kind in self._density_columns
            if pc.any(self._table[kind].is_valid().take(rows)).as_py()
        ]

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata of the file: schema_version, units, name, attribution, licence, ..."""
        # `validate` has replaced what is not UTF-8
        return {k.decode(): v.decode() for k, v in (self._table.schema.metadata or {}).items()}

    @property
    def densities(self) -> Sequence[ChargeDensity]:
        """One :class:`ChargeDensity` per material, named by its id; decoded on access.

        Access to a material without density raises RhosightError.
        """
        return Lazy(self._density, len(self))

    @property
    def has_density(self) -> np.ndarray:
        """Tell which materials have a density, shape (materials,), bool."""
        has = np.zeros(len(self), dtype=bool)
        for kind in self._density_columns:
            has |= self._table[kind].is_valid().to_numpy()[self._rows]
        return has

    @property
    def crystals(self) -> Sequence[BareCrystal]:
        """One crystal per material, named by its id, read without decoding grids."""
        return Lazy(self._bare_crystal, len(self))

    @property
    def structures(self) -> Sequence[Structure]:
        """One pymatgen Structure per material; decoded on access."""
        return Lazy(self._structure, len(self))

    @property
    def provenances(self) -> Sequence[Mapping[str, Any]]:
        """Provenance of each density, read without decoding grids."""
        return Lazy(self._provenance, len(self))

    def images(self, settings: ImageSettings, pad: int = 0) -> np.ndarray | None:
        """Return the stored images, or None if none fit the settings.

        Parameters
        ----------
        settings
            How the images must have been drawn.
        pad
            Margin in pixels; a larger stored margin is cropped.

        Returns
        -------
        np.ndarray or None
            Shape (materials, 3, size + 2 pad, size + 2 pad), float16 in [-1, 1]. None if the
            dataset has no images, or images drawn with other settings or a smaller margin.
        """
        stored = json.loads(self.metadata.get("image", "null"))
        # defaults of settings added later are the values with which older files were drawn
        if not stored or ImageSettings(**stored["settings"]) != settings:
            return None
        spare = stored["pad"] - pad
        column = self._table["image"].take(self._rows)
        if spare < 0 or column.null_count:
            return None
        side = settings.size + 2 * stored["pad"]
        flat = pc.list_flatten(column).to_numpy()
        images = flat.reshape(len(self), 3, side, side)
        return images[..., spare : side - spare, spare : side - spare]

    def with_targets(self, targets: str | Sequence[str]) -> Dataset:
        """Return this dataset with these labels among its targets.

        A label that the schema knows, such as ``band_gap``, is no target by default. Columns that
        are not numeric stay labels.
        """
        names = [targets] if isinstance(targets, str) else targets
        table = schema.with_targets(self._table, names)
        return self if table is self._table else Dataset(table, self._rows)

    def require_targets(
        self, targets: str | Sequence[str], how: Literal["all", "any"] = "all"
    ) -> Dataset:
        """Select the materials that have all (or any) of these targets.

        Labels become targets as in :meth:`with_targets`.

        Raises
        ------
        RhosightError
            If the dataset has no numeric column for a target, or no value in it.
        """
        targets = [targets] if isinstance(targets, str) else list(targets)
        name = self.metadata.get("name", "dataset")
        dataset = self.with_targets(targets)
        have = dataset.targets.count()
        for target in targets:
            if not have.get(target, 0):
                usable = ", ".join(have.index[have > 0])
                cure = (
                    f"choose from {usable} (--target, or targets=)"
                    if usable
                    else "the dataset has no targets; add labels to it"
                )
                raise RhosightError(f"{name}: {dataset._explain_missing(target)}; {cure}")
        present = dataset.targets[targets].notna()
        subset = dataset[present.all(axis=1) if how == "all" else present.any(axis=1)]
        if not len(subset):
            raise RhosightError(
                f"{name}: no material has all of {', '.join(targets)}; choose fewer targets"
            )
        return subset

    def _explain_missing(self, target: str) -> str:
        """Return why a target cannot be used."""
        if target in self.targets or target in TARGETS:
            return f"no value of `{target}`"
        if target in schema.columns_with(self._table.schema, "label"):
            return f"`{target}` is not a numeric column"
        return f"unknown target `{target}`"

    def fingerprint(self) -> str:
        """Return the SHA-256 of ids, structures, targets, texts and density bytes.

        It does not depend on the order of rows, on labels that are not targets, or on metadata.
        """
        digest = hashlib.sha256()
        # without columns, pandas lists no records
        targets = self.targets.to_dict("records") or [{}] * len(self)
        texts = self.texts.to_dict("records") or [{}] * len(self)
        structures = self._strings("structure")
        for i in np.argsort(self.ids, kind="stable").tolist():
            labels = {name: repr(value) for name, value in targets[i].items()}
            grids = self._grids(i)
            shapes = {kind: grid.shape for kind, grid in grids.items()}
            head = [self.ids[i], structures[i], labels, texts[i], shapes]
            digest.update(json.dumps(head, sort_keys=True).encode())
            for grid in grids.values():
                digest.update(np.ascontiguousarray(grid, dtype="<f4").data)
        return digest.hexdigest()

    def _positions(self, key: Any) -> np.ndarray:
        """Return positions for a slice, ids, positions or a mask."""
        if isinstance(key, slice):
            return np.arange(len(self))[key]
        key = np.asarray(key)
        if key.ndim != 1:
            raise TypeError("a dataset is indexed by id, position, slice, list or mask")
        if key.dtype == bool:
            if len(key) != len(self):
                raise IndexError(f"a mask of length {len(key)} for {len(self)} materials")
            return np.flatnonzero(key)
        if key.dtype.kind in "UO":
            positions = pd.Series(range(len(self)), self.table.index).reindex(key)
            if positions.isna().any():
                missing = key[positions.isna()][0]
                raise RhosightError(
                    f"{missing}: no such material_id among these {len(self)}; `dataset.ids` "
                    "lists them"
                )
            return positions.to_numpy(dtype=int)
        return np.arange(len(self))[key.astype(int, casting="safe") if len(key) else []]

    def _strings(self, name: str) -> list[str | None]:
        return self._table[name].take(self._rows).to_pylist()

    def _material(self, i: int) -> Material:
        row = self.table.iloc[i]
        targets = {str(name): float(row[str(name)]) for name in self.targets}
        texts = {str(extent): text for extent, text in self.texts.iloc[i].items()}
        return Material(self.ids[i], row["formula"], self._crystal(i), targets, texts)

    def _structure(self, i: int) -> Structure:
        row = int(self._rows[i])
        text, formula = (self._table[name][row].as_py() for name in ("structure", "formula"))
        structure = parse_structure_json(text, f"{self.ids[i]}: its `structure`", formula)
        check_crystal(structure, self.ids[i])
        return structure

    def _grids(self, i: int) -> dict[str, np.ndarray]:
        row = int(self._rows[i])
        cells = {kind: self._table[kind][row] for kind in self._density_columns}
        if not any(cell.is_valid for cell in cells.values()):
            return {}
        shape = self._table["grid"][row].as_py()
        return {
            kind: cell.values.to_numpy(zero_copy_only=False).reshape(shape)
            for kind, cell in cells.items()
            if cell.is_valid
        }

    @property
    def _density_columns(self) -> list[str]:
        return schema.columns_with(self._table.schema, "density")

    def _density(self, i: int) -> ChargeDensity:
        return require_density(self._crystal(i))

    def _crystal(self, i: int) -> Crystal:
        if not (grids := self._grids(i)):
            return self._bare_crystal(i)
        return ChargeDensity(self._structure(i), grids, self.ids[i], self._provenance(i))

    def _bare_crystal(self, i: int) -> BareCrystal:
        return BareCrystal(self._structure(i), self.ids[i], self._provenance(i))

    def _provenance(self, i: int) -> Mapping[str, Any]:
        if "provenance" not in self._table.column_names:
            return {}
        return self._read_json("provenance", i)

    def _read_json(self, name: str, i: int) -> dict[str, Any]:
        """Return the JSON object of a row in a column."""
        text = self._table[name][int(self._rows[i])].as_py()
        try:
            content = json.loads(text or "{}")
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise RhosightError(
                f"{self.ids[i]}: its `{name}` is not a JSON object; build the dataset again"
            )
        return content
