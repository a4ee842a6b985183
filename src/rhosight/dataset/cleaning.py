"""Clean a dataset in steps, and report every change with its reason."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ..density.charge_density import Kind
from ..density.crystals import MP_SYMPREC
from ..errors import RhosightError
from . import schema
from .artefacts import CORE_RADIUS, OUTLIER_THRESHOLD, note_artefacts
from .dataset import Dataset
from .labels import MAX_MODULUS, MODULUS_TOLERANCE, mask_labels
from .selection import bravais_filter, duplicate_filter, iqr_filter

_COLUMNS = ["material_id", "step", "action", "value", "bound", "reason"]
_ACTIONS = ["removed", "masked", "noted"]


@dataclass(frozen=True)
class CleaningReport:
    """Report what :func:`clean` changed.

    Attributes
    ----------
    table
        One row per finding: material_id, step ("labels", "density", "bravais", "duplicates",
        "artefacts", "iqr"), action ("removed", "masked", "noted"), value, bound, reason. A material
        that violates two bounds of a step has two rows.
    counts
        Indexed by step, in order: materials before, after, and how many were removed, masked or
        noted.
    bounds
        Bounds of the IQR filter, extreme → (lower, upper), e/Å³; empty without it.
    settings
        All settings, as JSON.
    """

    table: pd.DataFrame
    counts: pd.DataFrame
    bounds: dict[str, tuple[float, float]]
    settings: dict[str, Any]

    @property
    def removed(self) -> list[str]:
        """Ids of the removed materials."""
        return list(dict.fromkeys(self.table.loc[self.table["action"] == "removed", "material_id"]))

    def to_csv(self, path: str | os.PathLike) -> None:
        """Write ``table`` as CSV; the counts are sums of its rows.

        Raises
        ------
        RhosightError
            If the file cannot be written.
        """
        path = Path(path)
        try:
            self.table.to_csv(path, index=False, lineterminator="\n")
        except OSError as error:
            raise RhosightError(f"{path}: cannot be written; choose another path") from error

    def __str__(self) -> str:
        if self.counts.empty:
            return "no cleaning step was selected"
        lines = [self.counts.to_string()]
        for extreme, (lower, upper) in self.bounds.items():
            lines.append(f"{extreme} of the density kept in [{lower:.4g}, {upper:.4g}] e/Å³")
        for row in self.table.itertuples():
            lines.append(f"{row.material_id}: {row.step}, {row.action}: {row.reason}")
        return "\n".join(lines)


def clean(
    dataset: Dataset,
    *,
    labels: bool = True,
    max_modulus: float = MAX_MODULUS,
    modulus_tolerance: float = MODULUS_TOLERANCE,
    with_density: bool = False,
    bravais: str | Sequence[str] | None = "cF",
    symprec: float = MP_SYMPREC,
    duplicates: bool = True,
    length_tolerance: float = 0.05,
    site_tolerance: float = 0.1,
    artefacts: bool = True,
    core_radius: float = CORE_RADIUS,
    outlier_threshold: float = OUTLIER_THRESHOLD,
    iqr: Kind | None = "difference",
    iqr_factor: float = 1.5,
    reference: Dataset | None = None,
) -> tuple[Dataset, CleaningReport]:
    """Clean and select materials in steps, and report every change.

    The steps, in this order, with the settings of each:

    1. ``labels``: mask impossible labels (:func:`mask_labels`; bounds in GPa). Labels masked when
       the dataset was built are listed too.
    2. ``with_density``: keep materials that have a charge density.
    3. ``bravais``: keep these Bravais lattices (:func:`bravais_filter`; ``symprec`` in Å).
    4. ``duplicates``: keep one of each crystal (:func:`duplicate_filter`).
    5. ``artefacts``: note artefacts in ``total`` and ``difference`` (:func:`core_artefacts`).
    6. ``iqr``: remove outliers of this kind of density (:func:`iqr_filter`). ``reference`` defines
       the quartiles, by default the materials left by then. Pass the training set to keep
       information of the test set out.

    False or None skips a step. ``dataset`` is not changed. Returns the remaining materials, in
    order, and a report on what was removed, masked or noted, and why.
    """
    settings = {k: v for k, v in locals().items() if k not in ("dataset", "reference")}
    settings["reference"] = "all" if reference is None else f"{len(reference)} given materials"
    log = _Log(dataset)
    if labels:
        log.add("labels", "masked", *_mask(log.dataset, max_modulus, modulus_tolerance))
    if with_density:
        log.add("density", "removed", *_keep_densities(log.dataset))
    if bravais:
        log.add("bravais", "removed", *bravais_filter(log.dataset, bravais, symprec))
    if duplicates:
        kept, rows = duplicate_filter(log.dataset, length_tolerance, site_tolerance)
        log.add("duplicates", "removed", kept, rows)
    if artefacts:
        densities = log.dataset[log.dataset.has_density].densities
        rows = note_artefacts(densities, core_radius, outlier_threshold)
        log.add("artefacts", "noted", log.dataset, rows)
    if iqr:
        log.add("iqr", "removed", *iqr_filter(log.dataset, iqr, iqr_factor, reference))
    return log.dataset, log.write_report(settings)


class _Log:
    """Keep the dataset as it is after each step, and the findings."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.bounds: dict[str, tuple[float, float]] = {}
        self._findings: list[pd.DataFrame] = []
        self._counts: dict[str, dict[str, int]] = {}

    def add(self, step: str, action: str, kept: Dataset, rows: pd.DataFrame) -> None:
        """Record a step that leaves the materials ``kept``; ``rows`` are its findings."""
        self.bounds |= rows.attrs.pop("bounds", {})
        self._findings.append(rows.assign(step=step, action=action))
        numbers = dict.fromkeys(_ACTIONS, 0)
        numbers[action] = rows["material_id"].nunique()
        self._counts[step] = {"before": len(self.dataset), "after": len(kept), **numbers}
        self.dataset = kept

    def write_report(self, settings: dict[str, Any]) -> CleaningReport:
        """Join the findings of all steps."""
        rows = [frame[_COLUMNS].astype(object) for frame in self._findings if len(frame)]
        table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=_COLUMNS)
        counts = pd.DataFrame.from_dict(
            self._counts, orient="index", columns=["before", "after", *_ACTIONS]
        )
        return CleaningReport(table, counts.rename_axis("step"), self.bounds, settings)


def _keep_densities(dataset: Dataset) -> tuple[Dataset, pd.DataFrame]:
    """Return the materials with a density, and a table of the others."""
    without = dataset[~dataset.has_density].ids
    reason = "it has no charge density"
    rows = [(material_id, "none", "a density", reason) for material_id in without]
    report = pd.DataFrame(rows, columns=["material_id", "value", "bound", "reason"])
    return dataset[dataset.has_density], report


def _mask(dataset: Dataset, max_modulus: float, tolerance: float) -> tuple[Dataset, pd.DataFrame]:
    """Mask impossible labels; return the dataset and all masked labels, old and new."""
    labels, masked = mask_labels(dataset.table, max_modulus, tolerance)
    parts = [frame for frame in (dataset.masked, masked) if len(frame)]
    rows = pd.concat(parts, ignore_index=True) if parts else masked
    rows = rows.assign(bound=[_parse_bound(r, tolerance) for r in rows["reason"]])
    rows["reason"] = rows["target"] + ": " + rows["reason"]
    if masked.empty:
        return dataset, rows
    table, order = dataset._table, dataset._rows
    has_masked = "masked" in table.column_names
    records = table["masked"].to_pylist() if has_masked else [None] * len(table)
    row_of = dict(zip(dataset.ids, order, strict=True))
    for row in masked.itertuples():
        i = row_of[str(row.material_id)]
        record = {row.target: {"value": row.value, "reason": row.reason}}
        records[i] = json.dumps({**json.loads(records[i] or "{}"), **record}, ensure_ascii=False)
    for target in masked["target"].unique():
        values = np.array(table[target].to_numpy())
        values[order] = labels[target].to_numpy()
        table = _with_column(table, target, pa.array(values, from_pandas=True))
    return Dataset(_with_column(table, "masked", pa.array(records, pa.string())), order), rows


def _with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name in table.column_names:
        at = table.column_names.index(name)
        return table.set_column(at, table.schema.field(at), values)
    return table.append_column(schema.make_field(name, values.type), values)


def _parse_bound(reason: str, tolerance: float) -> float:
    """Return the bound, GPa, in a reason of :func:`mask_labels`; NaN without one."""
    if "negative" in reason:
        return 0.0
    factor = re.search(r"factor of ([\d.]+)", reason)
    if factor:
        return float(factor[1])
    above = re.match(r"above ([\d.e+]+) GPa", reason)
    if above:
        return float(above[1])
    return tolerance if "differ" in reason else float("nan")
