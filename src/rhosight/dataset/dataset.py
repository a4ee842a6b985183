"""Dataset: materials with densities, labels and texts, in memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pymatgen.core import Structure

from ..density.charge_density import ChargeDensity
from ..errors import RhosightError
from ..inputs.image import ImageSettings
from ..storage import replacing
from . import schema
from .schema import TARGETS
from .table import build_table

ROWS_IN_GROUP = 32  # of a Parquet file: one material can be read without the others


def parquet_options(compression_level: int) -> dict[str, Any]:
    """How a dataset is written: plain float32 under zstd, since symmetry repeats whole values,
    which compresses better than byte planes do.
    """
    return {
        "compression": "zstd",
        "compression_level": compression_level,
        "use_dictionary": False,
    }


def files_of(path: Path) -> list[Path]:
    """The Parquet files of a dataset: itself, or those in the folder."""
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.exists() else []


@dataclass(frozen=True)
class Material:
    """One material of a dataset.

    Attributes
    ----------
    material_id, formula
        Its id, and its reduced formula.
    density
        Structure and grids (e/Å³), decoded from the dataset; the grids are read-only.
    targets
        Target → value in the dataset's units, NaN where missing or masked.
    texts
        Extent → text, or None.
    """

    material_id: str
    formula: str
    density: ChargeDensity = field(repr=False)
    targets: dict[str, float]
    texts: dict[str, str | None]

    @property
    def structure(self) -> Structure:
        """The crystal, in the cell of the grids."""
        return self.density.structure


class Lazy(Sequence):
    """A read-only list whose items are made when asked for."""

    def __init__(self, make: Callable[[int], Any], length: int) -> None:
        self._make, self._length = make, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._length))]
        return self._make(range(self._length)[index])


class Dataset:
    """Materials in memory, like a list; densities and structures are decoded when asked for.

    ``dataset["mp-149"]`` and ``dataset[0]`` give a :class:`Material`; a slice, a list of ids or of
    positions and a mask give the :class:`Dataset` of these, which shares the memory. Made by
    :func:`load_dataset`, :meth:`from_parquet`, :meth:`from_densities`.

    Parameters
    ----------
    table
        As :func:`rhosight.dataset.schema.validate` returns it.
    rows
        Which of its rows, in which order; all by default.
    """

    def __init__(self, table: pa.Table, rows: np.ndarray | None = None) -> None:
        self._table = table
        self._rows = np.arange(len(table)) if rows is None else rows

    @classmethod
    def from_parquet(cls, path: str | os.PathLike) -> Dataset:
        """Read a Parquet file with the columns of :mod:`rhosight.dataset.schema`, or a folder of them."""
        path = Path(path)
        files = files_of(path)
        if not files:
            raise RhosightError(
                f"{path}: no such Parquet file, nor a folder of them; make one with "
                "`rhosight data build`"
            )
        tables = []
        for file in files:
            try:
                with pq.ParquetFile(file) as content:
                    tables.append(content.read())
            except (pa.ArrowException, OSError) as error:
                raise RhosightError(
                    f"{file}: not a readable Parquet file; copy it again, or make it with "
                    "`rhosight data build`"
                ) from error
        try:
            table = pa.concat_tables(tables)
        except pa.ArrowException as error:
            raise RhosightError(
                f"{path}: its files have different columns; build the dataset again"
            ) from error
        return cls(schema.validate(table, str(path)))

    @classmethod
    def from_densities(
        cls,
        densities: Iterable[ChargeDensity],
        labels: pd.DataFrame | None = None,
        texts: Mapping[str, Mapping[str, str | None]] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Build a dataset; nonsense moduli are masked (:func:`rhosight.dataset.mask_labels`).

        Parameters
        ----------
        densities
            Their names become the material ids. Grids are stored as float32.
        labels
            Indexed by material_id; numeric columns beside those of the schema become targets.
        texts
            Material id → extent → text.
        about
            ``name``, ``attribution``, ``licence``, ...: kept in the file's metadata. ``units`` is a
            dict with the units of targets that the schema does not know.
        """
        return cls(build_table(densities, labels, texts, about))

    def to_parquet(self, path: str | os.PathLike, compression_level: int = 9) -> None:
        """Write the materials to a Parquet file, at once or not at all; same content, same bytes.

        ``compression_level`` is zstd's, 1 to 22.
        """
        path = Path(path)
        table = schema.validate(self._table.take(self._rows), str(path))
        try:
            with replacing(path) as draft:
                pq.write_table(
                    table, draft, row_group_size=ROWS_IN_GROUP, **parquet_options(compression_level)
                )
        except OSError as error:
            reason = "is a folder" if path.is_dir() else f"no writable folder {path.parent}"
            raise RhosightError(f"{path}: cannot be written ({reason}); choose another") from error

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Material]:
        return (self._material(i) for i in range(len(self)))

    def __contains__(self, material_id: object) -> bool:
        return material_id in self.table.index

    def __getitem__(self, key: Any) -> Material | Dataset:
        if isinstance(key, str):
            return self._material(self._positions([key])[0])
        if isinstance(key, int | np.integer):
            return self._material(range(len(self))[key])
        return Dataset(self._table, self._rows[self._positions(key)])

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {n}" for name, n in self.targets.count().items())
        return f"Dataset({self.metadata.get('name', '')}: {len(self)} materials; {counts})"

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
        """Shape (materials, targets), in :attr:`units`; NaN where missing or masked."""
        return self.table[schema.columns_with(self._table.schema, "target")]

    @property
    def units(self) -> dict[str, str]:
        """Target → unit; an empty unit is an unknown one."""
        return {name: schema.unit_of(self._table.schema.field(name)) for name in self.targets}

    @cached_property
    def texts(self) -> pd.DataFrame:
        """Shape (materials, extents): descriptions, None where there is none."""
        names = schema.columns_with(self._table.schema, "text")
        columns = {name.removeprefix("text_"): self._strings(name) for name in names}
        return pd.DataFrame(columns, index=self.table.index, dtype=object)

    @cached_property
    def masked(self) -> pd.DataFrame:
        """Labels set to missing: material_id, target, value (as served, GPa), reason."""
        have = "masked" in self._table.column_names
        records = self._strings("masked") if have else []
        found = [
            {"material_id": material_id, "target": target, **record}
            for material_id, text in zip(self.ids, records, strict=False)
            for target, record in json.loads(text or "{}").items()
        ]
        return pd.DataFrame(found, columns=["material_id", "target", "value", "reason"])

    @property
    def metadata(self) -> dict[str, str]:
        """Of the whole file: schema_version, units, name, attribution, licence, ..."""
        return {k.decode(): v.decode() for k, v in (self._table.schema.metadata or {}).items()}

    @property
    def densities(self) -> Sequence[ChargeDensity]:
        """One :class:`ChargeDensity` a material, named by its id; decoded when asked for."""
        return Lazy(self._density, len(self))

    @property
    def structures(self) -> Sequence[Structure]:
        """One pymatgen Structure a material; decoded when asked for."""
        return Lazy(self._structure, len(self))

    @property
    def provenances(self) -> Sequence[Mapping[str, Any]]:
        """What is known of where each density came from; no grid is decoded for it."""
        return Lazy(self._provenance, len(self))

    def images(self, settings: ImageSettings, pad: int = 0) -> np.ndarray | None:
        """Stored images, shape (materials, 3, size + 2 pad, size + 2 pad), float16 in [-1, 1].

        None if none are stored, or ones that were drawn by other settings or with less margin.
        """
        stored = json.loads(self.metadata.get("image", "null"))
        # settings that came later have the value by which older files were drawn
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
        """This dataset, with those of its labels that are asked for here among its targets.

        A column that the schema has as a label, such as ``band_gap``, is no target by itself. What
        is no column of numbers stays as it is.
        """
        names = [targets] if isinstance(targets, str) else targets
        table = schema.with_targets(self._table, names)
        return self if table is self._table else Dataset(table, self._rows)

    def require_targets(
        self, targets: str | Sequence[str], how: Literal["all", "any"] = "all"
    ) -> Dataset:
        """The materials that have all (or any) of these targets, see :meth:`with_targets`.

        Raises
        ------
        RhosightError
            For a target that the dataset has no column of numbers for, or no value of.
        """
        targets = [targets] if isinstance(targets, str) else list(targets)
        name = self.metadata.get("name", "dataset")
        dataset = self.with_targets(targets)
        have = dataset.targets.count()
        for target in targets:
            if not have.get(target, 0):
                usable = ", ".join(have.index[have > 0])
                cure = f"choose from {usable} (--target, or targets=)" if usable else "it has none"
                raise RhosightError(f"{name}: {dataset._lacks(target)}; {cure}")
        present = dataset.targets[targets].notna()
        subset = dataset[present.all(axis=1) if how == "all" else present.any(axis=1)]
        if not len(subset):
            raise RhosightError(f"{name}: no material has all of {', '.join(targets)}")
        return subset

    def _lacks(self, target: str) -> str:
        """What there is in place of a target."""
        if target in self.targets or target in TARGETS:
            return f"no value of `{target}`"
        if target in schema.columns_with(self._table.schema, "label"):
            return f"`{target}` is no column of numbers"
        return f"unknown target `{target}`"

    def fingerprint(self) -> str:
        """SHA-256 of the content: ids, structures, targets, texts and density bytes.

        The order of rows, labels that are no targets, and file metadata do not enter.
        """
        digest = hashlib.sha256()
        targets = self.targets.to_dict("records")
        texts = self.texts.to_dict("records")
        structures = self._strings("structure")
        for i in np.argsort(self.ids, kind="stable").tolist():
            labels = {name: repr(value) for name, value in targets[i].items()}
            grids = self._grids(i)
            shapes = {kind: grid.shape for kind, grid in grids.items()}
            head = [self.ids[i], structures[i], labels, texts[i], shapes]
            digest.update(json.dumps(head, sort_keys=True).encode())
            for grid in grids.values():
                digest.update(np.ascontiguousarray(grid, dtype="<f4"))
        return digest.hexdigest()

    def _positions(self, key: Any) -> np.ndarray:
        """Positions from a slice, ids, positions or a mask."""
        if isinstance(key, slice):
            return np.arange(len(self))[key]
        key = np.asarray(key)
        if key.ndim != 1:
            raise TypeError("a dataset is indexed by id, position, slice, list or mask")
        if key.dtype == bool:
            if len(key) != len(self):
                raise IndexError(f"a mask of {len(key)} for {len(self)} materials")
            return np.flatnonzero(key)
        if key.dtype.kind in "UO":
            positions = pd.Series(range(len(self)), self.table.index).reindex(key)
            if positions.isna().any():
                missing = key[positions.isna()][0]
                raise RhosightError(f"{missing}: no such material_id among these {len(self)}")
            return positions.to_numpy(dtype=int)
        return np.arange(len(self))[key.astype(int, casting="safe") if len(key) else []]

    def _strings(self, name: str) -> list[str | None]:
        return self._table[name].take(self._rows).to_pylist()

    def _material(self, i: int) -> Material:
        row = self.table.iloc[i]
        targets = {name: float(row[name]) for name in self.targets}
        return Material(
            self.ids[i], row["formula"], self._density(i), targets, self.texts.iloc[i].to_dict()
        )

    def _structure(self, i: int) -> Structure:
        text = self._table["structure"][int(self._rows[i])].as_py()
        try:
            return Structure.from_dict(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise RhosightError(
                f"{self.ids[i]}: its `structure` is no pymatgen Structure; pack the dataset again"
            ) from error

    def _grids(self, i: int) -> dict[str, np.ndarray]:
        row = int(self._rows[i])
        shape = self._table["grid"][row].as_py()
        cells = {kind: self._table[kind][row] for kind in self._kinds}
        return {
            kind: cell.values.to_numpy(zero_copy_only=False).reshape(shape)
            for kind, cell in cells.items()
            if cell.is_valid
        }

    @property
    def _kinds(self) -> list[str]:
        return schema.columns_with(self._table.schema, "density")

    def _density(self, i: int) -> ChargeDensity:
        return ChargeDensity(self._structure(i), self._grids(i), self.ids[i], self._provenance(i))

    def _provenance(self, i: int) -> Mapping[str, Any]:
        if "provenance" not in self._table.column_names:
            return {}
        text = self._table["provenance"][int(self._rows[i])].as_py()
        try:
            return json.loads(text or "{}")
        except ValueError as error:
            raise RhosightError(
                f"{self.ids[i]}: its `provenance` is no JSON; build the dataset again"
            ) from error
