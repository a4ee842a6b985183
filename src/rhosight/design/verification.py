"""Compute proposals with GPAW: density, formation energy, bulk modulus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from ..dataset.dataset import Dataset
from ..density.charge_density import ChargeDensity
from ..errors import RhosightError
from .calculations import Calculations, make_cell
from .correction import MODULUS, Correction
from .equation_of_state import compute_equation_of_state
from .hull import find_hull
from .prototypes import resize
from .references import compute_formation_energy
from .wishes import FORMATION_ENERGY, HULL, Wish, describe_property

COMPUTED = (FORMATION_ENERGY, MODULUS)
"""Properties that are computed."""

UNITS = {FORMATION_ENERGY: "eV/atom", MODULUS: "GPa", HULL: "eV/atom"}

QUANTILE = 1.645
"""Standard deviations in half of a 90 % interval."""

EARLIER = {FORMATION_ENERGY: 2.1, MODULUS: 0.65}
"""Mean squares of the errors of 30 proposals of an earlier run with the model ``structure``, in
units of what it expected (``docs/results/design``)."""

TRUST = 10
"""Errors as in the earlier run that count beside those of the proposals."""

LARGEST_DEVIATION = 0.002
"""Root mean square from which energies do not fit an equation of state, eV/atom."""

GEOMETRY = "shape and positions of the structure type, volume of GPAW's equation of state"
"""Provenance of the computed densities' cells."""

WIDENING = "_widening"
"""End of the column with the factor by which a search widened the intervals of a target."""

CALCULATIONS = 6
"""Calculations of one crystal: five volumes, and the density at the minimum."""


@dataclass(frozen=True)
class Verification:
    """Proposals with what GPAW computed of them.

    Attributes
    ----------
    table
        One row for each proposal, in their order: ``name``, ``formula``, ``prototype``, for both
        properties the prediction with ``_low`` and ``_high``, ``_gpaw`` as computed, ``_verified``
        with the correction, ``_error`` its standard deviation, ``_inside`` the interval, which
        this error widens, and ``_inside_model`` the model's alone; ``energy_above_hull`` and its
        ``_verified``; volumes in Å³/atom; ``met`` tells whether the wishes that can be checked
        hold; ``problem``.
    densities
        Name → density at the computed volume.
    """

    table: pd.DataFrame
    densities: dict[str, ChargeDensity]

    @property
    def good(self) -> pd.DataFrame:
        """Return the rows without a problem."""
        return self.table[self.table["problem"].isna()]

    def dataset(self) -> Dataset | None:
        """Return the computed crystals as a dataset with densities, or None without any.

        Labels are those of GPAW with the correction, so that they join the Materials Project's.
        """
        rows = self.good.set_index("name")
        if not len(rows):
            return None
        labels = pd.DataFrame({target: rows[f"{target}_verified"] for target in COMPUTED})
        for column in rows.filter(regex="^dft_"):
            labels[column] = rows[column]
        labels.index.name = "material_id"
        densities = [self.densities[one] for one in rows.index]
        return Dataset.from_densities(densities, labels, about=describe_dataset("computed"))


def describe_dataset(name: str) -> dict[str, str]:
    """Return name and description of a dataset of computed proposals."""
    return {
        "name": name,
        "description": "Crystals that a search proposed, computed with GPAW; formation energies and"
        " bulk moduli corrected to the Materials Project's",
    }


Computed = dict[str, tuple[dict[str, Any], ChargeDensity] | str]
"""Name → what GPAW computed and the density, or the problem."""


def compute_all(
    names: Sequence[str],
    structures: Mapping[str, Structure],
    calculations: Calculations,
    shared: Calculations,
    warn: Callable[[str], None],
) -> Computed:
    """Compute crystals; one that fails does not stop the others.

    Parameters
    ----------
    names, structures
        Names in order, and name → crystal.
    calculations, shared
        What is computed already, and the settings: of the crystals, and of the elements.
    warn
        Called with a line for each crystal that fails.
    """
    computed: Computed = {}
    for name in names:
        try:
            computed[name] = compute(name, structures[name], calculations, shared)
        except RhosightError as error:
            computed[name] = str(error)
            warn(f"{name}: not verified: {error}")
    return computed


def verify(
    proposals: Sequence[Mapping[str, Any]],
    computed: Computed,
    wishes: Sequence[Wish],
    correction: Correction,
) -> Verification:
    """Compare what was computed of proposals with their predictions and the wishes.

    Parameters
    ----------
    proposals
        Rows of :attr:`rhosight.design.result.Design.proposals`.
    computed
        Results of :func:`compute_all`.
    wishes
        Ranges of properties.
    correction
        Of GPAW's results.
    """
    rows, densities = [], {}
    for proposal in proposals:
        name = proposal["name"]
        row, result = _describe(proposal), computed[name]
        if isinstance(result, str):
            row["problem"] = result
        else:
            figures, densities[name] = result
            row |= figures | _compare(row, figures, correction, wishes)
        rows.append(row)
    return Verification(pd.DataFrame(rows), densities)


def compute(
    name: str, structure: Structure, calculations: Calculations, shared: Calculations
) -> tuple[dict[str, Any], ChargeDensity]:
    """Return what GPAW computes of a crystal, and its density at the computed volume.

    Raises
    ------
    RhosightError
        If a calculation fails.
    """
    cell = make_cell(structure, name)
    curve = compute_equation_of_state(calculations, name, cell)
    if curve.deviation > LARGEST_DEVIATION:
        raise RhosightError(
            f"{name}: the energies lie {1000 * curve.deviation:.1f} meV/atom off the equation of "
            "state, perhaps since the magnetic state changes with the volume; no modulus is told"
        )
    relaxed = resize(cell, curve.volume)
    result, density = calculations.density(f"{name}/minimum", relaxed)
    provenance = {**density.provenance, "geometry": GEOMETRY}
    density = ChargeDensity(density.structure, density.grids, name, provenance)
    energy = compute_formation_energy(shared, relaxed, result.energy)
    figures = {
        f"{FORMATION_ENERGY}_gpaw": energy,
        f"{MODULUS}_gpaw": curve.bulk_modulus,
        "volume_per_atom_gpaw": curve.volume / len(cell),
        "deviation": curve.deviation,
        **result.figures,
    }
    return figures, density


def _describe(proposal: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that are known before GPAW runs."""
    names = [f"{target}{end}" for target in COMPUTED for end in ("", "_low", "_high", WIDENING)]
    columns = ["name", "formula", "prototype", "probability", *names, HULL, "volume_per_atom"]
    row = {column: proposal[column] for column in columns if column in proposal}
    for target in (*COMPUTED, HULL):
        row[f"{target}_verified"] = np.nan
    return row | {"met": None, "problem": None}


def _compare(
    row: Mapping[str, Any],
    figures: Mapping[str, Any],
    correction: Correction,
    wishes: Sequence[Wish],
) -> dict[str, Any]:
    """Return corrected values, and whether intervals and wishes hold."""
    energy, modulus = correction.correct(
        row["formula"], *(figures[f"{target}_gpaw"] for target in COMPUTED)
    )
    values = {FORMATION_ENERGY: energy, MODULUS: modulus}
    values[HULL] = energy - find_hull(row["formula"]).energy
    added: dict[str, Any] = {f"{target}_verified": value for target, value in values.items()}
    errors = correction.estimate_errors(row["formula"], modulus)
    for target, error in zip(COMPUTED, errors, strict=True):
        added[f"{target}_error"] = error
        if target in row:
            mean, low, high = (row[f"{target}{end}"] for end in ("", "_low", "_high"))
            off, half = values[target] - mean, _half_width(values[target], mean, low, high)
            own = half / row.get(f"{target}{WIDENING}", 1.0)
            added[f"{target}_inside_model"] = bool(abs(off) <= own)
            added[f"{target}_inside"] = bool(abs(off) <= np.hypot(half, QUANTILE * error))
    computed = [wish for wish in wishes if wish.target in values]
    held = all(bool(wish.is_met(np.array(values[wish.target]))) for wish in computed)
    # True only if every wish was computed
    added["met"] = None if held and len(computed) < len(wishes) else held
    return added


def measure_widening(tables: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Return factors by which intervals are too narrow for proposals of a search.

    A search chooses candidates about which its model errs to their advantage, so that intervals
    which hold on average do not hold for them. The factor is the root mean square of the errors in
    units of what was expected, and at least 1. :data:`TRUST` errors as large as those of an
    :data:`EARLIER` run are added, so that a run begins with what that one has shown. The error of
    the correction is part of what was expected, but is not widened: the factor is a little too
    small.

    Parameters
    ----------
    tables
        :attr:`Verification.table` of each round so far.
    """
    factors = {}
    for target, earlier in EARLIER.items():
        errors = [_standardise_errors(table, target) for table in tables]
        squares = np.concatenate([*errors, np.zeros(0)]) ** 2
        mean = (TRUST * earlier + squares.sum()) / (TRUST + len(squares))
        factors[target] = round(max(1.0, float(np.sqrt(mean))), 3)
    return factors


def _standardise_errors(table: pd.DataFrame, target: str) -> np.ndarray:
    """Return the errors of computed proposals in units of what their model expected."""
    good = table[table["problem"].isna()]
    if f"{target}_inside" not in good:
        return np.zeros(0)
    verified, mean, low, high = (
        good[f"{target}{end}"] for end in ("_verified", "", "_low", "_high")
    )
    half = _half_width(verified, mean, low, high)
    if f"{target}{WIDENING}" in good:  # the model's own widths count
        half = half / good[f"{target}{WIDENING}"].fillna(1.0).to_numpy()
    expected = np.hypot(half / QUANTILE, good[f"{target}_error"])
    return ((verified - mean) / expected).to_numpy(float)


def _half_width(value: Any, mean: Any, low: Any, high: Any) -> Any:
    """Return the half width on the side of the value, of numbers or columns."""
    return np.where(value > mean, high - mean, mean - low)


def describe_verdict(row: Mapping[str, Any]) -> str:
    """Return whether the wishes of a computed crystal hold, in words."""
    met = row["met"]
    if met is None or pd.isna(met):
        return "not all computed"
    return "hold" if met else "fail"


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Count crystals computed, inside their intervals, and meeting the wishes.

    Parameters
    ----------
    table
        Rows of :attr:`Verification.table`, of one round or several.
    """
    good = table[table["problem"].isna()]
    summary: dict[str, Any] = {"proposals": len(table), "computed": len(good)}
    if not len(good):
        return summary
    for target in COMPUTED:
        if f"{target}_inside" in good:
            name = describe_property(target)
            errors = (good[target] - good[f"{target}_verified"]).abs()
            summary[f"{name} inside"] = int(good[f"{target}_inside"].sum())
            inside = int(good[f"{target}_inside_model"].sum())
            summary[f"{name} inside the model's interval alone"] = inside
            summary[f"{name}, median error ({UNITS[target]})"] = round(float(errors.median()), 4)
    above = good[f"{HULL}_verified"]
    summary[f"{describe_property(HULL)}, median ({UNITS[HULL]})"] = round(float(above.median()), 4)
    summary["wishes hold"] = int((good["met"] == True).sum())  # noqa: E712 (None: not computed)
    return summary
