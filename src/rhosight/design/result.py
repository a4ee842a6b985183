"""The result of a search: proposals, facts about them, and files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pymatgen.core import Composition, Structure

from ..errors import RhosightError
from ..inputs.progress import Progress
from ..inputs.text.description import describe
from ..models.base import SavedModel
from ..storage import replacing
from .hull import find_hull, find_stable_entry
from .space import balance_charges
from .wishes import FORMATION_ENERGY, HULL, Wish

CSV, REPORT, CRYSTALS = "proposals.csv", "report.html", "structures"
"""Files of a saved search, and the folder of its CIFs."""

NONMETALS = frozenset(
    ("H", "C", "N", "O", "F", "P", "S", "Cl", "As", "Se", "Br", "Te", "I", "B", "Si", "Ge", "Sb")
)


@dataclass
class Design:
    """Result of a search: proposals, nearest misses, all that was tried.

    Attributes
    ----------
    wishes
        Ranges that were asked for.
    proposals
        Chosen crystals in the order in which they should be tried; empty if nothing is plausible.
        Columns: ``name``, ``formula``, ``prototype``, ``probability`` (that all wishes hold), each
        predicted property with ``_low`` and ``_high``, ``energy_above_hull`` (eV/atom) and
        ``phases`` that compete, ``known`` (id of the same crystal in the bundled datasets),
        ``stable_entry`` (id of a stable Materials Project entry of this formula), ``nearest``
        training material, ``charges``, ``outside``, ``text``, ``volume_per_atom`` (Å³).
    misses
        Nearest misses, with the same columns, where nothing is plausible.
    tried
        The ledger: one row for each candidate.
    structures
        Name → crystal of each proposal or miss.
    units, targets
        Units, and the predicted properties.
    counts
        How many occupations were listed, and why others were left out.
    settings
        Of the search.
    models
        The models by name.
    densities
        Name → predicted density.
    """

    wishes: tuple[Wish, ...]
    proposals: pd.DataFrame
    misses: pd.DataFrame
    tried: pd.DataFrame
    structures: dict[str, Structure]
    units: dict[str, str]
    targets: tuple[str, ...]
    counts: dict[str, int]
    settings: dict[str, Any]
    models: Mapping[str, SavedModel] = field(default_factory=dict)
    densities: dict[str, Any] = field(default_factory=dict)

    @property
    def is_plausible(self) -> bool:
        """Tell whether a candidate probably fulfils the wishes."""
        return len(self.proposals) > 0

    @property
    def shown(self) -> pd.DataFrame:
        """Return the proposals, or the nearest misses if there are none."""
        return self.proposals if self.is_plausible else self.misses

    def describe(self, densities: bool = True, progress: Progress | None = None) -> None:
        """Add the columns that are computed only for what is shown, and predict densities."""
        table = self.shown
        facts = []
        rows: list[Any] = table.to_dict("records")
        for number, row in enumerate(rows, 1):
            facts.append(self._describe(row, self.structures[row["name"]]))
            if densities:
                self._predict_density(row["name"])
            if progress:
                progress("proposals", number, len(table))
        extra = pd.DataFrame(facts, index=table.index)
        if self.is_plausible:
            self.proposals = table.join(extra)
        else:
            self.misses = table.join(extra)

    def _describe(self, row: dict[str, Any], structure: Structure) -> dict[str, Any]:
        """Return the facts about one crystal that the ledger does not have."""
        formula = row["formula"]
        facts: dict[str, Any] = {}
        if FORMATION_ENERGY in row:
            hull = find_hull(formula)
            facts[HULL] = row[FORMATION_ENERGY] - hull.energy
            facts["phases"] = " + ".join(hull.phases)
        facts["stable_entry"] = find_stable_entry(formula)
        facts["nearest"] = self._find_nearest(structure)
        facts["charges"] = describe_charges(formula)
        facts["text"] = describe(structure, "keywords")
        return facts

    def _find_nearest(self, structure: Structure) -> str:
        """Return the training material that the first model finds most similar."""
        models: list[Any] = [m for m in self.models.values() if not m.uses_density]
        for model in models:
            try:
                table = model.predict_intervals({"one": structure}, nearest=1)
            except TypeError:  # a model that does not tell
                continue
            name, distance = table["nearest"].iloc[0][0]
            return f"{name} ({distance:.2f})"
        return ""

    def _predict_density(self, name: str) -> None:
        try:
            from ..ecd.model import load_density_model  # needs PyTorch

            self.densities[name] = load_density_model().predict(self.structures[name], 0.25)
        except (RhosightError, ImportError):  # an element without a free atom: no picture
            return

    def count_met(self) -> dict[str, int]:
        """Return how many of the tried crystals are predicted inside each range."""
        return {
            str(wish): int(wish.is_met(self.tried[wish.target].to_numpy(float)).sum())
            for wish in self.wishes
            if wish.target in self.tried
        }

    def format_csv(self) -> str:
        """Return what is shown as CSV, with units in the names of the columns."""
        names = {
            column: f"{column} ({unit})"
            for target, unit in self.units.items()
            for column in (target, f"{target}_low", f"{target}_high")
        }
        table = self.shown.drop(columns="elements", errors="ignore").rename(columns=names)
        return table.to_csv(index=False, lineterminator="\n")

    def save(self, folder: Path) -> None:
        """Write proposals.csv, one CIF for each crystal and report.html, atomically."""
        from .report import write_report

        crystals = folder / CRYSTALS
        crystals.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(self.shown.get("name", []), 1):
            path = crystals / f"{number:02d}-{self.shown['formula'][number - 1]}.cif"
            with replacing(path) as draft:
                draft.write_text(format_cif(self.structures[name]), encoding="utf-8")
        with replacing(folder / CSV) as draft:
            draft.write_text(self.format_csv(), encoding="utf-8")
        with replacing(folder / "summary.json") as draft:
            summary = {
                "plausible": self.is_plausible,
                "proposals": len(self.proposals),
                "tried": len(self.tried),
                "counts": self.counts,
                "inside": self.count_met(),
            }
            draft.write_text(json.dumps(summary, indent=2), encoding="utf-8")
        write_report(self, folder / REPORT)


def describe_charges(formula: str) -> str:
    """Return oxidation states that balance a formula, or why there are none."""
    composition = Composition(formula)
    symbols = {element.symbol for element in composition}
    if not symbols & NONMETALS:
        return "intermetallic"
    charges = balance_charges(composition)
    if charges is None:
        return "not balanced by common oxidation states"
    if len(symbols) == 1:
        return "element"
    return " ".join(f"{symbol}{charge:+g}" for symbol, charge in charges.items())


def format_cif(structure: Structure) -> str:
    """Return a crystal as CIF with its symmetry."""
    from pymatgen.io.cif import CifWriter

    return str(CifWriter(structure, symprec=0.01, significant_figures=6))
