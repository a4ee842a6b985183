"""Correction of GPAW's results by what it differs from the Materials Project on known crystals.

The models predict formation energies and bulk moduli of the Materials Project: other PAW data sets,
a finer basis, elastic tensors of relaxed atoms. GPAW's results are compared with predictions after
the median difference on known crystals has been taken off.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Composition, Structure

from ..dataset.packing import load_dataset
from ..errors import RhosightError
from .calculations import Calculations, make_cell
from .equation_of_state import compute_equation_of_state
from .references import compute_formation_energy, list_references
from .wishes import FORMATION_ENERGY

MODULUS = "bulk_modulus_vrh"

KNOWN = 10
"""Known crystals that are computed."""

FEWEST = 3
"""Known crystals below which there is no correction."""


@dataclass(frozen=True)
class Correction:
    """Differences of GPAW from the Materials Project on known crystals.

    Attributes
    ----------
    table
        One row for each crystal: ``material_id``, ``formula``, both properties as the Materials
        Project and as GPAW give them (``…_mp``, ``…_gpaw``), ``problem``.
    """

    table: pd.DataFrame

    @property
    def energy(self) -> float:
        """Return the median of GPAW's formation energies less the known ones, eV/atom."""
        return float(np.median(self.differences[0]))

    @property
    def modulus(self) -> float:
        """Return the median of GPAW's bulk moduli divided by the known ones."""
        return float(np.median(self.differences[1]))

    @property
    def differences(self) -> tuple[np.ndarray, np.ndarray]:
        """Return differences of energies, eV/atom, and ratios of moduli."""
        good = self.table[self.table["problem"].isna()]
        energies = good[f"{FORMATION_ENERGY}_gpaw"] - good[f"{FORMATION_ENERGY}_mp"]
        ratios = good[f"{MODULUS}_gpaw"] / good[f"{MODULUS}_mp"]
        return energies.to_numpy(float), ratios.to_numpy(float)

    @property
    def spread(self) -> tuple[float, float]:
        """Return standard deviations about the medians, of energies and of ratios.

        From the median of the absolute deviations, so that one odd crystal counts little.
        """
        energies, ratios = (1.4826 * _deviation(values) for values in self.differences)
        return energies, ratios

    def correct(self, energy: float, modulus: float) -> tuple[float, float]:
        """Return GPAW's formation energy and bulk modulus as the Materials Project's would be."""
        return energy - self.energy, modulus / self.modulus


def _deviation(values: np.ndarray) -> float:
    return float(np.median(np.abs(values - np.median(values))))


def choose_known(
    training_ids: Collection[str], elements: Collection[str], max_atoms: int, seed: int
) -> dict[str, Structure]:
    """Return known crystals to be computed, id → primitive standardised cell.

    Compounds of these elements in the training set with both labels, drawn at random, one of each
    set of elements.

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
    systems = {
        str(name): frozenset(e.symbol for e in Composition(formula))
        for name, formula in mine["formula"].items()
    }
    names = sorted(name for name, own in systems.items() if len(own) > 1 and own <= allowed)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen: dict[str, Structure] = {}
    seen: set[frozenset[str]] = set()
    for place in order:
        name = names[place]
        if systems[name] in seen or len(chosen) == KNOWN:
            continue
        seen.add(systems[name])
        chosen[name] = make_cell(dataset[name].structure, name)
    if len(chosen) < FEWEST:
        raise RhosightError(
            f"only {len(chosen)} known compounds of these elements have both labels, too few to "
            "measure what GPAW differs from the Materials Project; allow more elements, or larger "
            "cells"
        )
    return chosen


def measure_correction(
    calculations: Calculations, known: dict[str, Structure], warn: Callable[[str], None]
) -> Correction:
    """Compute known crystals with GPAW and compare with their labels.

    Raises
    ------
    RhosightError
        If too few can be computed.
    """
    labels = load_dataset("mp-elastic").table
    rows = [_compare(calculations, name, known[name], labels.loc[name].to_dict()) for name in known]
    table = pd.DataFrame(rows)
    for row in rows:
        if row["problem"]:
            warn(f"{row['material_id']}: left out of the correction: {row['problem']}")
    if table["problem"].isna().sum() < FEWEST:
        raise RhosightError(
            f"GPAW computed fewer than {FEWEST} known crystals, too few for a correction: "
            f"{rows[0]['problem']}"
        )
    return Correction(table)


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
