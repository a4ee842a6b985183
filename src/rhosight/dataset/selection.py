"""Select materials by Bravais lattice and by density, and keep each only once.

The filter of outlying densities is the paper's.

Every function returns the materials that stay and a table of the removed ones, each with its
value, the bound and the reason.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from pymatgen.core import Structure

from ..density.charge_density import Kind
from ..density.crystals import MP_SYMPREC, find_symmetry, number_species
from ..errors import RhosightError

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from .dataset import Dataset

BRAVAIS: tuple[str, ...] = (
    "cF", "cI", "cP", "hP", "hR", "tP", "tI", "oP", "oS", "oI", "oF", "mP", "mS", "aP",
)  # fmt: skip
"""Pearson symbols of the 14 Bravais lattices: crystal family, then centring."""

# last space group of each crystal family
_FAMILIES = ((2, "a"), (15, "m"), (74, "o"), (142, "t"), (194, "h"), (230, "c"))


def bravais_lattice(structure: Structure, symprec: float = MP_SYMPREC) -> str | None:
    """Return the Pearson symbol of the Bravais lattice, such as ``"cF"``.

    It is None if spglib finds no symmetry. ``symprec`` is spglib's tolerance in Å. Occupancies and
    oxidation states distinguish sites.
    """
    symmetry = find_symmetry(structure, number_species(structure), symprec)
    if symmetry is None:
        return None
    family = next(name for last, name in _FAMILIES if symmetry.number <= last)
    centring = symmetry.international[0]
    return family + ("S" if centring in "ABC" else centring)


def bravais_filter(
    dataset: Dataset, bravais: str | Sequence[str] = "cF", symprec: float = MP_SYMPREC
) -> tuple[Dataset, pd.DataFrame]:
    """Keep the materials of one Bravais lattice, or of several.

    Parameters
    ----------
    dataset
        The materials to select from.
    bravais
        Pearson symbols, see :data:`BRAVAIS`. The paper's crystals are ``"cF"``.
    symprec
        Tolerance of spglib, Å.

    Returns
    -------
    kept
        The materials with such a lattice.
    removed
        Columns material_id, value (the lattice), bound (the requested lattices), reason.

    Raises
    ------
    RhosightError
        For an unknown lattice, or a tolerance that is not positive.
    """
    wanted = [bravais] if isinstance(bravais, str) else list(bravais)
    unknown = sorted(set(wanted) - set(BRAVAIS))
    if unknown or not wanted:
        raise RhosightError(
            f"unknown Bravais lattice {', '.join(unknown)}; choose from {', '.join(BRAVAIS)}"
        )
    if not symprec > 0:
        raise RhosightError(f"symprec must be a positive number of Å, not {symprec}")
    lattices = {
        material_id: bravais_lattice(structure, symprec)
        for material_id, structure in zip(dataset.ids, dataset.structures, strict=True)
    }
    bound = ", ".join(wanted)
    removed = [
        (i, lattice or "none", bound, _explain_lattice(lattice, bound, symprec))
        for i, lattice in lattices.items()
        if lattice not in wanted
    ]
    report = pd.DataFrame(removed, columns=["material_id", "value", "bound", "reason"])
    return dataset[[lattice in wanted for lattice in lattices.values()]], report


def _explain_lattice(lattice: str | None, wanted: str, symprec: float) -> str:
    if lattice is None:
        return (
            f"spglib finds no symmetry within {symprec:g} Å; check for atoms on the same position"
        )
    return f"Bravais lattice {lattice}, not {wanted}, within {symprec:g} Å"


def iqr_filter(
    dataset: Dataset,
    kind: Kind = "difference",
    factor: float = 1.5,
    reference: Dataset | None = None,
) -> tuple[Dataset, pd.DataFrame]:
    """Remove materials with an outlying maximum or minimum (paper section 2.1).

    A material stays if the maximum of its grid lies within [Q1 − factor·IQR, Q3 + factor·IQR] of
    all maxima, and its minimum within the same range of all minima.

    Parameters
    ----------
    dataset
        The materials to filter.
    kind
        Kind of density; every material must have it.
    factor
        Number of interquartile ranges.
    reference
        Materials that define the quartiles, by default ``dataset``. Pass the training set to keep
        information of the test set out.

    Returns
    -------
    kept
        The materials within both ranges.
    report
        One row per violated bound: material_id, extreme ("maximum" or "minimum"), value and
        bound (e/Å³), reason. ``report.attrs["bounds"]`` holds all four bounds, extreme → (lower,
        upper).

    Raises
    ------
    RhosightError
        If a material lacks the kind, the reference is empty, or the factor is not positive.
    """
    if not factor > 0:
        raise RhosightError(f"the IQR factor is {factor}; it must be positive")
    extremes = _compute_extremes(dataset, kind)
    known = extremes if reference is None else _compute_extremes(reference, kind)
    if known.empty:
        raise RhosightError("no quartiles: the reference is empty; give at least one material")
    first, third = known.quantile(0.25), known.quantile(0.75)
    reach = factor * (third - first)
    lower, upper = first - reach, third + reach
    rows = []
    for extreme in extremes.columns:
        for i, value in extremes[extreme].items():
            if lower[extreme] <= value <= upper[extreme]:
                continue
            side = "below" if value < lower[extreme] else "above"
            bound = (lower if side == "below" else upper)[extreme]
            reason = f"{extreme} of {kind} {value:.4g} e/Å³ is {side} the bound {bound:.4g}"
            rows.append((i, extreme, value, float(bound), reason))
    report = pd.DataFrame(rows, columns=["material_id", "extreme", "value", "bound", "reason"])
    report.attrs["bounds"] = {e: (float(lower[e]), float(upper[e])) for e in extremes.columns}
    removed = set(report["material_id"])
    return dataset[[i not in removed for i in dataset.ids]], report


def _compute_extremes(dataset: Dataset, kind: Kind) -> pd.DataFrame:
    """Return the maximum and minimum of each grid, e/Å³, indexed by material_id."""
    rows = []
    for density in dataset.densities:
        if kind not in density.kinds:
            raise RhosightError(
                f"{density.name}: has {', '.join(density.kinds)} but not `{kind}`, which the IQR "
                "filter needs; remove the material, or choose another kind"
            )
        grid = density.grid(kind)
        rows.append((float(grid.max()), float(grid.min())))
    return pd.DataFrame(rows, index=dataset.ids, columns=["maximum", "minimum"], dtype=float)


def duplicate_filter(
    dataset: Dataset,
    length_tolerance: float = 0.05,
    site_tolerance: float = 0.1,
    angle_tolerance: float = 2.0,
) -> tuple[Dataset, pd.DataFrame]:
    """Keep one of each crystal that occurs under several ids.

    Two materials are one crystal if they share formula and space group and pymatgen's
    StructureMatcher maps one onto the other (primitive cells, volumes not rescaled: a copy strained
    beyond the tolerance is another crystal). The material with most targets stays. Among equals,
    the first id in natural order stays (``mp-2`` before ``mp-10``). The order of rows has no
    effect.

    Parameters
    ----------
    dataset
        The materials to select from.
    length_tolerance
        Largest relative difference of lattice lengths.
    site_tolerance
        Largest root mean square displacement of the sites, in (volume per atom)^⅓. Also the
        ``bound`` of the report.
    angle_tolerance
        Largest difference of lattice angles, degrees.

    Returns
    -------
    kept
        The materials, each crystal once.
    removed
        Columns material_id, value (displacement, in the unit of ``site_tolerance``), bound,
        reason, kept_id (the material that represents it).
    """
    matcher = make_structure_matcher(length_tolerance, site_tolerance, angle_tolerance)
    targets = dataset.targets.notna().sum(axis=1).to_numpy()
    order = sorted(range(len(dataset)), key=lambda i: (-targets[i], natural_key(dataset.ids[i])))
    formulas, groups = dataset.table["formula"], dataset.table["spacegroup_number"]
    alike = pd.Series(order).groupby([formulas.to_numpy()[order], groups.to_numpy()[order]])
    removed = []
    for _, rows in alike:
        distinct: list[int] = []
        for i in rows if len(rows) > 1 else ():
            other, distance = _match(matcher, dataset.structures, distinct, i)
            if other is None:
                distinct.append(i)
                continue
            mine, its = dataset.ids[i], dataset.ids[other]
            reason = f"the same crystal as {its}: {formulas.iloc[i]}, space group {groups.iloc[i]}"
            removed.append((i, mine, distance, site_tolerance, reason, its))
    columns = ["row", "material_id", "value", "bound", "reason", "kept_id"]
    report = pd.DataFrame(removed, columns=columns).sort_values("row", ignore_index=True)
    gone = set(report["row"])
    return dataset[[i not in gone for i in range(len(dataset))]], report.drop(columns="row")


def make_structure_matcher(
    length_tolerance: float, site_tolerance: float, angle_tolerance: float
) -> StructureMatcher:
    """Create pymatgen's StructureMatcher as :func:`duplicate_filter` uses it."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(length_tolerance, site_tolerance, angle_tolerance, scale=False)


def _match(
    matcher: StructureMatcher, structures: Sequence[Structure], candidates: list[int], row: int
) -> tuple[int | None, float]:
    """Return the first equal candidate and its displacement, or (None, NaN)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for other in candidates:
            distances = matcher.get_rms_dist(structures[other], structures[row])
            if distances is not None:
                return other, float(distances[0])
    return None, float("nan")


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key that orders numbers by value: ``mp-2`` before ``mp-10``."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]
