"""Cleaning: labels that cannot be right, artefacts near the cores, and all steps as one report."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.ndimage
from scipy.spatial import KDTree

from ..density.charge_density import ChargeDensity, Kind
from ..errors import RhosightError
from . import schema
from .labels import MAX_MODULUS, MODULUS, MODULUS_TOLERANCE, mask_labels
from .selection import bravais_filter, duplicate_filter, iqr_filter

if TYPE_CHECKING:
    from .dataset import Dataset


CORE_RADIUS = 1.0
"""Å. Augmentation charges and pseudo-densities end about there; see :func:`core_artefacts`."""
OUTLIER_THRESHOLD = 6.0
"""Robust units. Of the bundled grids none of `total` or `spin` and 2 of 405 of `difference` hold
a point above it, none a point above 6.4."""
NEGATIVE_TOLERANCE = 1e-4
"""e/Å³. Plane waves ring by about that much where there is no charge."""

_SMALLEST = 5  # points along each axis that the interpolation of a point needs
_AROUND = np.array([o for o in itertools.product((-1, 0, 1), repeat=3) if any(o)])


@dataclass(frozen=True)
class CoreArtefacts:
    """What :func:`core_artefacts` finds in one grid.

    Attributes
    ----------
    material_id, kind
        Whose grid.
    voxels
        Points of the grid.
    negative, negative_near
        Points of ``total`` below zero, and how many of them are near a nucleus; zero for other
        kinds, which may be negative.
    lowest
        Smallest value, e/Å³.
    negative_charge
        Their integral, electrons (a negative number).
    outliers
        Isolated points, worst first: i, j, k, value and expected (e/Å³), score (robust units),
        distance (Å, to the nearest nucleus), element (of that nucleus), near (within the radius).
    """

    material_id: str
    kind: str
    voxels: int
    negative: int
    negative_near: int
    lowest: float
    negative_charge: float
    outliers: pd.DataFrame

    def __bool__(self) -> bool:
        return bool(self.negative or len(self.outliers))

    @property
    def negative_share(self) -> float:
        """Negative points as a share of all."""
        return self.negative / self.voxels


def core_artefacts(
    density: ChargeDensity,
    kind: Kind = "total",
    radius: float = CORE_RADIUS,
    threshold: float = OUTLIER_THRESHOLD,
    negative_tolerance: float = NEGATIVE_TOLERANCE,
) -> CoreArtefacts:
    """Values that the grid, not the crystal, has put into a density.

    - *Negative total density.* A density cannot be negative; a PAW code's smooth density and its
      augmentation charges on an FFT grid can, near the nuclei above all. CHGCAR files often are.
    - *Isolated points*, where oscillations of the grid break through. Each point is compared with
      what cubic interpolation of its neighbours along the three axes expects of it. The deviation
      is measured in robust units: 1.4826 times the median deviation of the 26 neighbours, plus a
      hundredth of the spread (median absolute deviation) of the whole grid. It counts if it is
      above ``threshold`` and the largest among its neighbours.

    The comparison is with an interpolation, since comparing with the neighbours' values themselves
    also flags sound maxima at nuclei. Both are notes, not verdicts: rings that span several points
    are smooth for this test, a cluster counts as one, a density that its grid barely resolves
    hides small artefacts, and a code's hard core on a coarse grid can look like one. Of points put
    off by half the largest value within two steps of a nucleus of the bundled crystals, 99 % are
    found in ``total`` and 75 % in ``difference``; off by a tenth of it, 34 % and 22 %.

    Parameters
    ----------
    density, kind
        Which grid. With fewer than 5 points along an axis, isolated points cannot be told.
    radius
        Å; what is this close to a nucleus counts as near.
    threshold
        Robust units.
    negative_tolerance
        e/Å³; how far below zero ``total`` may go.
    """
    if not (radius > 0 and threshold > 0 and negative_tolerance >= 0):
        raise RhosightError("radius and threshold must be positive, the tolerance not negative")
    grid = np.asarray(density.grid(kind), dtype=float)
    below = np.argwhere(grid < -negative_tolerance) if kind in ("total", "promolecule") else ()
    below = np.reshape(below, (-1, 3)).astype(int)
    nearest, _ = _to_nuclei(density, below)
    charge = float(grid[tuple(below.T)].sum() / grid.size * density.structure.volume)
    return CoreArtefacts(
        material_id=density.name,
        kind=kind,
        voxels=grid.size,
        negative=len(below),
        negative_near=int((nearest <= radius).sum()),
        lowest=float(grid.min()),
        negative_charge=charge,
        outliers=_outliers(grid, density, radius, threshold),
    )


def _outliers(
    grid: np.ndarray, density: ChargeDensity, radius: float, threshold: float
) -> pd.DataFrame:
    points, expected, score = np.empty((0, 3), int), np.empty(0), np.empty(0)
    if min(grid.shape) >= _SMALLEST:
        smooth = np.zeros_like(grid)
        for axis in range(3):
            one = np.roll(grid, 1, axis) + np.roll(grid, -1, axis)
            two = np.roll(grid, 2, axis) + np.roll(grid, -2, axis)
            smooth += (4 * one - two) / 18
        deviation = np.abs(grid - smooth)
        spread = 1.4826 * np.median(np.abs(grid - np.median(grid)))
        # of a constant but for a few points, rounding is all that is left to compare with
        floor = 0.01 * spread + 1e-6 * np.abs(grid).max()
        highest = scipy.ndimage.maximum_filter(deviation, size=3, mode="wrap")
        points = np.argwhere((deviation == highest) & (deviation > threshold * floor))
        around = (points[:, None, :] + _AROUND) % grid.shape
        typical = np.median(deviation[tuple(np.moveaxis(around, -1, 0))], axis=1)
        score = deviation[tuple(points.T)] / (1.4826 * typical + floor)
        points, score = points[score > threshold], score[score > threshold]
        expected = smooth[tuple(points.T)]
    distance, site = _to_nuclei(density, points)
    elements = [density.structure[int(i)].species_string for i in site]
    found = pd.DataFrame(points, columns=["i", "j", "k"])
    found["value"], found["expected"] = grid[tuple(points.T)], expected
    found["score"], found["distance"] = score, distance
    found["element"] = pd.Series(elements, dtype=object)
    found["near"] = distance <= radius
    return found.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _to_nuclei(density: ChargeDensity, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (Å) of grid points (n, 3) to the nearest nucleus, and which site that is."""
    if not len(points):
        return np.empty(0), np.empty(0, int)
    # within a reduced cell, the nearest image is in one of the 27 cells around
    cell = density.structure.lattice.matrix
    reduced = density.structure.lattice.get_lll_reduced_lattice().matrix
    to_reduced = np.linalg.inv(reduced)
    sites = (density.structure.frac_coords @ cell @ to_reduced) % 1.0
    images = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    all_sites = (sites[None] + images[:, None]).reshape(-1, 3) @ reduced
    places = ((points / np.array(density.shape)) @ cell @ to_reduced) % 1.0
    distance, index = KDTree(all_sites).query(places @ reduced)
    return distance, index % len(sites)


@dataclass(frozen=True)
class CleaningReport:
    """What :func:`clean` did.

    Attributes
    ----------
    table
        One row for each finding: material_id, step ("labels", "bravais", "duplicates", "artefacts",
        "iqr"), action ("removed", "masked", "noted"), value, bound, reason. A material that
        violates two bounds of a step has two rows.
    counts
        Indexed by step, in the order taken: materials before, after, and how many were removed,
        masked or noted.
    bounds
        Of the IQR filter, extreme → (lower, upper), e/Å³; empty without it.
    settings
        All that decided, as JSON.
    """

    table: pd.DataFrame
    counts: pd.DataFrame
    bounds: dict[str, tuple[float, float]]
    settings: dict[str, Any]

    @property
    def removed(self) -> list[str]:
        """Ids of the materials that did not stay."""
        return list(dict.fromkeys(self.table.loc[self.table["action"] == "removed", "material_id"]))

    def to_csv(self, path: str | os.PathLike) -> None:
        """Write ``table`` as CSV; the counts are in it as sums of its rows."""
        path = Path(path)
        try:
            self.table.to_csv(path, index=False, lineterminator="\n")
        except OSError as error:
            raise RhosightError(f"{path}: cannot be written; choose another place") from error

    def __str__(self) -> str:
        if self.counts.empty:
            return "no step was asked for"
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
    bravais: str | Sequence[str] | None = "cF",
    symprec: float = 0.1,
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
    """Clean and select, step by step, with nothing removed in silence.

    The steps, in this order: mask labels that cannot be right (:func:`mask_labels`; those masked
    when the dataset was built are listed too), keep one Bravais lattice (:func:`bravais_filter`),
    keep one of each crystal (:func:`duplicate_filter`), note artefacts of the grid
    (:func:`core_artefacts`; removes nothing), remove outlying densities (:func:`iqr_filter`).

    Parameters
    ----------
    dataset
        What to clean; it is not changed.
    labels, max_modulus, modulus_tolerance
        Whether to mask labels, and the two bounds, GPa.
    bravais, symprec
        Pearson symbols to keep, None for all; spglib's tolerance, Å.
    duplicates, length_tolerance, site_tolerance
        Whether to keep one of each crystal, and what counts as the same.
    artefacts, core_radius, outlier_threshold
        Whether to look for artefacts in ``total`` and ``difference``, where there are such.
    iqr, iqr_factor, reference
        Kind of density for the IQR filter, None to leave it out; its reach; and where the
        quartiles come from, by default what the steps before have left. Give the training part,
        so that nothing of the test part enters.

    Returns
    -------
    kept
        The materials that stay, in order.
    report
        What was removed, masked or noted, why, and how many before and after each step.
    """
    settings = {
        name: value for name, value in locals().items() if name not in ("dataset", "reference")
    }
    settings["reference"] = "all" if reference is None else f"{len(reference)} given materials"
    found: list[pd.DataFrame] = []
    counts: dict[str, dict[str, int]] = {}
    bounds: dict[str, tuple[float, float]] = {}

    def record(step: str, action: str, rows: pd.DataFrame, before: Dataset, after: Dataset) -> None:
        found.append(rows.assign(step=step, action=action))
        number = {name: 0 for name in ("removed", "masked", "noted")}
        number[action] = rows["material_id"].nunique()
        counts[step] = {"before": len(before), "after": len(after), **number}

    if labels:
        masked, rows = _mask(dataset, max_modulus, modulus_tolerance)
        record("labels", "masked", rows, dataset, masked)
        dataset = masked
    if bravais:
        kept, rows = bravais_filter(dataset, bravais, symprec)
        record("bravais", "removed", rows, dataset, kept)
        dataset = kept
    if duplicates:
        kept, rows = duplicate_filter(dataset, length_tolerance, site_tolerance)
        record("duplicates", "removed", rows, dataset, kept)
        dataset = kept
    if artefacts:
        rows = _artefact_notes(dataset, core_radius, outlier_threshold)
        record("artefacts", "noted", rows, dataset, dataset)
    if iqr:
        kept, rows = iqr_filter(dataset, iqr, iqr_factor, reference)
        bounds = rows.attrs.pop("bounds")
        record("iqr", "removed", rows, dataset, kept)
        dataset = kept
    columns = ["material_id", "step", "action", "value", "bound", "reason"]
    rows = [frame[columns].astype(object) for frame in found if len(frame)]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)
    summary = pd.DataFrame.from_dict(
        counts, orient="index", columns=["before", "after", "removed", "masked", "noted"]
    )
    return dataset, CleaningReport(table, summary.rename_axis("step"), bounds, settings)


def _mask(dataset: Dataset, max_modulus: float, tolerance: float) -> tuple[Dataset, pd.DataFrame]:
    """The dataset with its nonsense labels masked, and what is masked, now or before."""
    from .dataset import Dataset

    labels, masked = mask_labels(dataset.table, max_modulus, tolerance)
    have = [frame for frame in (dataset.masked, masked) if len(frame)]
    rows = pd.concat(have, ignore_index=True) if have else masked
    rows = rows.assign(bound=[_bound_of(r, tolerance) for r in rows["reason"]])
    rows["reason"] = rows["target"] + ": " + rows["reason"]
    if masked.empty:
        return dataset, rows
    table, order = dataset._table, dataset._rows
    values = np.array(table[MODULUS].to_numpy())
    values[order] = labels[MODULUS].to_numpy()
    have = "masked" in table.column_names
    records = table["masked"].to_pylist() if have else [None] * len(table)
    row_of = dict(zip(dataset.ids, order, strict=True))
    for row in masked.itertuples():
        i = row_of[row.material_id]
        record = {row.target: {"value": row.value, "reason": row.reason}}
        records[i] = json.dumps({**json.loads(records[i] or "{}"), **record}, ensure_ascii=False)
    table = _with_column(table, MODULUS, pa.array(values, from_pandas=True))
    return Dataset(_with_column(table, "masked", pa.array(records, pa.string())), order), rows


def _with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    field = schema.make_field(name, values.type)
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), field, values)
    return table.append_column(field, values)


def _bound_of(reason: str, tolerance: float) -> float:
    """The bound, GPa, that a reason of :func:`mask_labels` speaks of; NaN for other reasons."""
    if "negative" in reason:
        return 0.0
    above = re.match(r"above ([\d.e+]+) GPa", reason)
    if above:
        return float(above[1])
    return tolerance if "differ" in reason else float("nan")


def _artefact_notes(dataset: Dataset, radius: float, threshold: float) -> pd.DataFrame:
    rows = []
    for density in dataset.densities:
        for kind in (kind for kind in ("total", "difference") if kind in density.grids):
            found = core_artefacts(density, kind, radius, threshold)
            rows += [(density.name, *note) for note in _notes(found, radius, threshold)]
    return pd.DataFrame(rows, columns=["material_id", "value", "bound", "reason"])


def _notes(found: CoreArtefacts, radius: float, threshold: float) -> list[tuple[float, float, str]]:
    """(value, bound, sentence) of each sort of artefact."""
    notes = []
    if found.negative:
        notes.append(
            (
                found.lowest,
                0.0,
                f"{found.kind} is negative at {found.negative} of {found.voxels} grid points "
                f"({found.negative_share:.2%}), {found.negative_near} of them within {radius:g} Å "
                f"of a nucleus; lowest {found.lowest:.3g} e/Å³, {found.negative_charge:.3g} e",
            )
        )
    if len(found.outliers):
        worst, near = found.outliers.iloc[0], int(found.outliers["near"].sum())
        notes.append(
            (
                float(worst["score"]),
                threshold,
                f"{found.kind} has {len(found.outliers)} isolated grid point(s), {near} of them "
                f"within {radius:g} Å of a nucleus; worst at ({worst['i']}, {worst['j']}, "
                f"{worst['k']}), {worst['distance']:.2f} Å from {worst['element']}: "
                f"{worst['value']:.4g} where {worst['expected']:.4g} e/Å³ is expected",
            )
        )
    return notes
