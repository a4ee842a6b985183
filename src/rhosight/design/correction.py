"""Correct GPAW's results by its difference from the Materials Project.

The models predict formation energies and bulk moduli of the Materials Project: other PAW data sets,
a finer basis, elastic tensors of relaxed atoms. GPAW's formation energies differ by up to 0.1
eV/atom, by amounts that belong to the elements: those of platinum's and iridium's compounds are too
high. So the difference is learned as a sum of shares of the elements, and is taken off. Bulk moduli
are divided by the median ratio. What the corrected values still miss is estimated, too, from the
known crystals left out one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Composition, Structure

from ..dataset.packing import load_dataset
from ..errors import RhosightError
from .calculations import Calculations, make_cell
from .equation_of_state import compute_equation_of_state
from .references import (
    compute_formation_energy,
    has_bundled_energies,
    list_references,
)
from .wishes import FORMATION_ENERGY

MODULUS = "bulk_modulus_vrh"

KNOWN = 10
"""Known crystals that are computed."""

FEWEST = 3
"""Known crystals below which there is no correction."""

PRIOR, NOISE = 0.1, 0.03
"""Standard deviations of an element's share, and of what the shares miss, eV/atom."""


@dataclass(frozen=True)
class Correction:
    """Differences of GPAW from the Materials Project on known crystals.

    Attributes
    ----------
    table
        One row for each crystal: ``material_id``, ``formula``, both properties as the Materials
        Project and as GPAW give them (``…_mp``, ``…_gpaw``; the modulus only of crystals that were
        computed for it), ``problem``.
    """

    table: pd.DataFrame

    @property
    def good(self) -> pd.DataFrame:
        """Return the rows without a problem."""
        return self.table[self.table["problem"].isna()]

    @property
    def differences(self) -> np.ndarray:
        """Return GPAW's formation energies minus the known ones, eV/atom."""
        good = self.good
        energies = good[f"{FORMATION_ENERGY}_gpaw"] - good[f"{FORMATION_ENERGY}_mp"]
        return energies.to_numpy(float)

    @property
    def ratios(self) -> np.ndarray:
        """Return GPAW's bulk moduli divided by the known ones, where both exist."""
        return (self.good[f"{MODULUS}_gpaw"] / self.good[f"{MODULUS}_mp"]).dropna().to_numpy(float)

    @cached_property
    def modulus(self) -> float:
        """The median of the ratios."""
        return float(np.median(self.ratios))

    @cached_property
    def elements(self) -> tuple[str, ...]:
        """The elements of the known crystals, sorted."""
        formulas = self.good["formula"]
        return tuple(sorted({e.symbol for text in formulas for e in Composition(text)}))

    def _features(self, formulas: Collection[str]) -> np.ndarray:
        """Return 1 and the share of each element, shape (formulas, 1 + elements)."""
        shares = [Composition(text).fractional_composition for text in formulas]
        return np.array([[1.0, *(one[symbol] for symbol in self.elements)] for one in shares])

    @cached_property
    def shares(self) -> np.ndarray:
        """Shares of any compound and of each element, eV/atom, shape (1 + elements,).

        The most probable ones under a normal prior about 0: an element without a known crystal gets
        none.
        """
        features = self._features(self.good["formula"].tolist())
        return _learn(features, self.differences)

    @cached_property
    def left_out(self) -> np.ndarray:
        """Differences that the others' shares miss, eV/atom, shape (crystals,)."""
        features, values = self._features(self.good["formula"].tolist()), self.differences
        rows = np.arange(len(values))
        return np.array(
            [
                values[row] - features[row] @ _learn(features[rows != row], values[rows != row])
                for row in rows
            ]
        )

    def difference(self, formula: str) -> float:
        """Return what GPAW's formation energy of a compound probably is too high, eV/atom."""
        return float(self._features([formula])[0] @ self.shares)

    @cached_property
    def width(self) -> float:
        """The factor of the assumed errors that :attr:`left_out` shows; at least 1."""
        features, values = self._features(self.good["formula"].tolist()), self.left_out
        rows = np.arange(len(values))
        assumed = [_spread(features[row], features[rows != row]) for row in rows]
        return float(max(1.0, np.sqrt(np.mean((values / np.array(assumed)) ** 2))))

    def estimate_errors(self, formula: str, modulus: float) -> tuple[float, float]:
        """Return standard deviations of a compound's corrected energy and bulk modulus.

        That of the energy, eV/atom, grows with the shares of elements that few known crystals
        have. That of the modulus, GPa, is the spread of the ratios.
        """
        composition = Composition(formula).fractional_composition
        unknown = [share for e, share in composition.items() if e.symbol not in self.elements]
        features = self._features(self.good["formula"].tolist())
        known = _spread(self._features([formula])[0], features)
        energy = self.width * float(np.hypot(known, PRIOR * np.linalg.norm(unknown)))
        ratios = self.ratios
        # the median of n values has 1.25 times the error of their mean
        spread = float(np.std(ratios, ddof=1)) * np.sqrt(1 + 1.25**2 / len(ratios))
        return energy, modulus * float(spread) / self.modulus

    def list_unknown(self, formula: str) -> list[str]:
        """Return the elements of a compound that no known crystal has."""
        symbols = {e.symbol for e in Composition(formula)}
        return sorted(symbols - set(self.elements))

    def correct(self, formula: str, energy: float, modulus: float) -> tuple[float, float]:
        """Return GPAW's formation energy and bulk modulus after correction."""
        return energy - self.difference(formula), modulus / self.modulus


def _learn(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the most probable weights of a linear model with normal prior and noise."""
    precision = features.T @ features / NOISE**2 + np.eye(features.shape[1]) / PRIOR**2
    return np.linalg.solve(precision, features.T @ values / NOISE**2)


def _spread(features: np.ndarray, learned: np.ndarray) -> float:
    """Return the standard deviation of a compound's difference, see :func:`_learn`.

    Parameters
    ----------
    features
        Of the compound, shape (n,).
    learned
        Of the known crystals, shape (crystals, n).
    """
    precision = learned.T @ learned / NOISE**2 + np.eye(len(features)) / PRIOR**2
    return float(np.sqrt(features @ np.linalg.solve(precision, features) + NOISE**2))


def choose_known(
    training_ids: Collection[str],
    elements: Collection[str],
    max_atoms: int,
    seed: int,
    count: int = KNOWN,
) -> dict[str, Structure]:
    """Return known crystals to be computed, id → primitive standardised cell.

    Compounds of these elements in the training set with both labels: those with the smallest cells,
    each next one with elements that few of those before have, drawn at random among equals.

    Raises
    ------
    RhosightError
        If there are too few.
    """
    dataset = load_dataset("mp-elastic")
    table = dataset.table
    mine = table[
        table.index.isin(training_ids)
        & (table["nsites"] <= max_atoms)
        & table[FORMATION_ENERGY].notna()
        & table[MODULUS].notna()
    ]
    allowed = set(elements) & set(list_references())
    systems = _list_systems(mine, allowed)
    names = sorted(systems)
    order = dict(zip(names, np.random.default_rng([seed, 2]).permutation(len(names)), strict=True))
    atoms = mine["nsites"].to_dict()
    chosen: dict[str, Structure] = {}
    covered: dict[str, int] = dict.fromkeys(allowed, 0)
    while names and len(chosen) < count:
        counts = {n: sorted(covered[e] for e in systems[n]) for n in names}
        names.sort(key=lambda n: (atoms[n], counts[n], order[n]))
        name = names.pop(0)
        chosen[name] = make_cell(dataset[name].structure, name)
        for symbol in systems[name]:
            covered[symbol] += 1
    if len(chosen) < FEWEST:
        raise RhosightError(
            f"only {len(chosen)} known compounds of these elements have both labels, too few to "
            "measure how GPAW differs from the Materials Project; allow more elements, or larger "
            "cells"
        )
    return chosen


def _list_systems(table: pd.DataFrame, allowed: Collection[str]) -> dict[str, frozenset[str]]:
    """Return id → elements of the compounds of some elements."""
    systems = {
        str(name): frozenset(e.symbol for e in Composition(formula))
        for name, formula in table["formula"].items()
    }
    return {n: own for n, own in systems.items() if len(own) > 1 and own <= set(allowed)}


def measure_correction(
    calculations: Calculations,
    known: dict[str, Structure],
    elements: Collection[str],
    training_ids: Collection[str],
    warn: Callable[[str], None],
) -> Correction:
    """Compute known crystals with GPAW and compare with their labels.

    Parameters
    ----------
    calculations
        What is computed already, and the settings.
    known
        Crystals to be computed, see :func:`choose_known`.
    elements, training_ids
        Of the search, and of the model. Crystals of ``mp-fcc`` that have only such elements and are
        among the latter serve for formation energies: their energies are bundled.
    warn
        Called with a line for each crystal that fails.

    Raises
    ------
    RhosightError
        If too few can be computed.
    """
    labels = load_dataset("mp-elastic").table
    rows = [_compare(calculations, name, known[name], labels.loc[name].to_dict()) for name in known]
    for row in rows:
        if row["problem"]:
            warn(f"{row['material_id']}: left out of the correction: {row['problem']}")
    if sum(row["problem"] is None for row in rows) < FEWEST:
        raise RhosightError(
            f"GPAW computed fewer than {FEWEST} known crystals, too few for a correction: "
            f"{next(row['problem'] for row in rows if row['problem'])}"
        )
    bundled = _list_bundled(calculations, elements, training_ids, known)
    return Correction(pd.DataFrame([*rows, *bundled]))


def _list_bundled(
    calculations: Calculations,
    elements: Collection[str],
    training_ids: Collection[str],
    known: Collection[str],
) -> list[dict[str, Any]]:
    """Return rows of crystals whose energies ``mp-fcc`` has."""
    if not has_bundled_energies(calculations.gpaw):
        return []
    dataset = load_dataset("mp-fcc")
    table = dataset.table
    mine = table[table.index.isin(training_ids) & ~table.index.isin(known)]
    rows = []
    for name in _list_systems(mine, elements):
        labels: dict[Any, Any] = mine.loc[name].to_dict()
        row = {
            "material_id": name,
            "formula": labels["formula"],
            f"{FORMATION_ENERGY}_mp": float(labels[FORMATION_ENERGY]),
            f"{MODULUS}_mp": float(labels[MODULUS]),
            "problem": None,
        }
        structure, energy = dataset[name].structure, float(labels["dft_energy"])
        try:
            own = compute_formation_energy(calculations, structure, energy)
            rows.append(row | {f"{FORMATION_ENERGY}_gpaw": own})
        except RhosightError as error:
            rows.append(row | {"problem": str(error)})
    return rows


def _compare(
    calculations: Calculations, name: str, structure: Structure, labels: Mapping[Any, Any]
) -> dict[str, Any]:
    row: dict[str, Any] = {"material_id": name, "formula": labels["formula"]}
    for target in (FORMATION_ENERGY, MODULUS):
        row |= {f"{target}_mp": float(labels[target]), f"{target}_gpaw": np.nan}
    try:
        curve = compute_equation_of_state(calculations, f"known/{name}", structure)
        row |= {
            f"{FORMATION_ENERGY}_gpaw": compute_formation_energy(
                calculations, structure, curve.energy
            ),
            f"{MODULUS}_gpaw": curve.bulk_modulus,
            "volume_change": curve.volume / structure.volume - 1,
            "problem": None,
        }
    except RhosightError as error:
        row["problem"] = str(error)
    return row
