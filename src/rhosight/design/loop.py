"""Search, verify by DFT, learn, and search again.

>>> found = run_rounds(
...     {"bulk_modulus_vrh": (200, 250)}, out="stiff", rounds=2, count=10, max_atoms=4
... )
>>> found.table[["formula", "bulk_modulus_vrh", "bulk_modulus_vrh_verified"]]

The folder holds a search for each round (``round-1``, …), GPAW's calculations (``gpaw``), and the
results of all rounds. Each calculation is a file: the same call continues an interrupted one, and
computes at most one again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pymatgen.core import Structure

from ..dataset.dataset import Dataset
from ..dataset.sources.gpaw import Gpaw, find_gpaw
from ..density.structure_json import parse_structure_json
from ..errors import RhosightError
from ..inputs.progress import Progress
from ..models.loading import load_model
from ..networks.feature_cache import cache_folder
from ..storage import lock_folder, open_run, read_json, replacing
from .calculations import Calculations
from .correction import KNOWN, Correction, choose_known, measure_correction
from .elements import choose_elements
from .equation_of_state import FACTORS
from .ledger import VERIFIED as MARKED
from .ledger import Ledger
from .processes import known_elements
from .references import list_references
from .retraining import check_retrainable, retrain
from .search import Search
from .verification import (
    CALCULATIONS,
    WIDENING,
    Verification,
    compute_all,
    describe_dataset,
    measure_widening,
    summarise,
    verify,
)
from .verification_report import write_verification_report
from .wishes import read_wishes

METHODS = ("gpaw",)
"""Ways to verify proposals."""

VERIFIED, CORRECTION, LEDGER = "verified", "correction.csv", "ledger"

logger = logging.getLogger(__name__)

Log = Callable[[str], None]


@dataclass(frozen=True)
class Rounds:
    """Results of all rounds.

    Attributes
    ----------
    table
        Rows of :attr:`rhosight.design.verification.Verification.table` with the column ``round``.
    correction
        How GPAW differs from the Materials Project on known crystals.
    dataset
        Computed crystals with densities; None if there are none.
    """

    table: pd.DataFrame
    correction: Correction
    dataset: Dataset | None

    @property
    def summary(self) -> dict[str, Any]:
        """Return counts and medians, see :func:`rhosight.design.verification.summarise`."""
        return summarise(self.table)


def run_rounds(
    targets: Mapping[str, tuple[float | None, float | None]] | Sequence[str],
    *,
    out: str | os.PathLike,
    rounds: int = 1,
    known: int = KNOWN,
    gpaw: Gpaw | None = None,
    progress: Progress | None = None,
    log: Log | None = None,
    **settings: Any,
) -> Rounds:
    """Search in rounds; compute the proposals of each by GPAW, and learn from them.

    Parameters
    ----------
    targets, progress
        See :func:`rhosight.design.search.design`.
    out
        Folder; the same call continues an interrupted one. A larger number of rounds continues a
        finished one.
    rounds
        Number of searches. ``count`` proposals of each are computed.
    known
        Number of known crystals that are computed, too, to learn how GPAW differs from the
        Materials Project.
    gpaw
        Settings of GPAW; those of the bundled densities by default.
    log
        Called with a line for each calculation and each problem; by default they are logged.
    **settings
        Of :class:`rhosight.design.search.Search`.

    Raises
    ------
    RhosightError
        For a wrong setting, a folder that holds something else, a model that cannot be trained
        again, or if GPAW is missing.
    """
    if rounds < 1:
        raise RhosightError(f"rounds: must be at least 1, not {rounds}")
    if settings.get("include_known"):
        raise RhosightError(
            "include_known: the models have learned from known crystals, so computing them tests "
            "nothing; leave them out (some are computed anyway, to correct GPAW's results)"
        )
    loop = _Loop(
        Search(tuple(read_wishes(targets)), **settings),
        Path(out),
        gpaw or Gpaw(),
        progress,
        log or logger.info,
        known,
    )
    with lock_folder(loop.out):
        return loop.run(rounds)


@dataclass
class _Loop:
    """The state of a run in rounds."""

    search: Search
    out: Path
    gpaw: Gpaw
    progress: Progress | None
    log: Log
    compared: int = KNOWN
    planned: int = 0
    seconds: list[float] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)
    training_ids: set[str] = field(default_factory=set)
    known: dict[str, Structure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = self.gpaw.calculation()
        text = json.dumps(settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.mine = Calculations(self.out / "gpaw", self.gpaw, self._report)
        # elements and known crystals serve every search with these settings
        self.shared = Calculations(cache_folder() / "gpaw" / digest, self.gpaw, self._report)

    def run(self, rounds: int) -> Rounds:
        """Run all rounds, see :func:`run_rounds`."""
        models = {name: load_model(name) for name in self.search.models}
        if rounds > 1:
            check_retrainable(self.search.models[0], models[self.search.models[0]])
        known = set(known_elements(models))
        elements = choose_elements(known, self.search.elements, self.search.exclude)
        without = sorted(set(elements) - set(list_references()))
        if without:
            self.log(
                f"left out of the search, since no crystal of the element is bundled to which its "
                f"compounds could be compared: {', '.join(without)}"
            )
        self.elements = sorted(set(elements) - set(without))
        if not self.elements:
            raise RhosightError("no element is left that GPAW could verify; give more elements")
        open_run(self.out, self._describe(models))
        self.training_ids = set(models[self.search.models[0]].about.get("training_ids", ()))
        self.known = choose_known(
            self.training_ids,
            self.elements,
            self.search.max_atoms,
            self.search.seed,
            self.compared,
        )
        if not self._is_computed(rounds):
            find_gpaw(self.gpaw.python)  # better known before the search
        self.planned = len(self.known) * len(FACTORS) + rounds * self.search.count * CALCULATIONS
        done: list[Verification] = []
        result = None
        for number in range(1, rounds + 1):
            verified = self._run_round(number, done)
            if verified is None:
                break
            done.append(verified)
            result = self._save(done)
        if result is None:
            raise RhosightError(
                f"{self.out}: nothing plausible, so nothing was computed; see round-1/report.html"
            )
        return result

    @cached_property
    def correction(self) -> Correction:
        """Compute known crystals when the correction is first needed."""
        correction = measure_correction(
            self.shared, self.known, self.elements, self.training_ids, self.log
        )
        self._write(correction.table, CORRECTION)
        return correction

    def _describe(self, models: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "task": "design with verification",
            "targets": [str(wish) for wish in self.search.wishes],
            "elements": self.elements,
            "candidates": self.search.candidates,
            "count": self.search.count,
            "seed": self.search.seed,
            "models": list(models),
            "compare": self.compared,
            **self.search.describe_space(self.search.read_crystals()),
            "max_atoms": self.search.max_atoms,
            "include_known": self.search.include_known,
            "geometry": self.search.geometry,
            "gpaw": self.gpaw.calculation(),
        }

    def _is_computed(self, rounds: int) -> bool:
        """Return whether all rounds were computed."""
        files = (self._folder(n) / LEDGER / MARKED for n in range(1, rounds + 1))
        return all(file.exists() for file in files)

    def _folder(self, number: int) -> Path:
        return self.out / f"round-{number}"

    def _run_round(self, number: int, done: Sequence[Verification]) -> Verification | None:
        """Search and compute; return None if nothing is plausible."""
        rows, structures = self._propose(number, done)
        if not rows:
            self.log(f"round {number}: nothing plausible; see {self._folder(number)}/report.html")
            return None
        computed = compute_all(list(structures), structures, self.mine, self.shared, self.log)
        for row in rows:
            if unknown := self.correction.list_unknown(row["formula"]):
                self.log(
                    f"{row['name']}: no known crystal has {', '.join(unknown)}, so its formation "
                    "energy is not corrected for it"
                )
        verified = verify(rows, computed, self.search.wishes, self.correction)
        marked: list[Any] = verified.table.to_dict("records")
        Ledger(self._folder(number) / LEDGER).mark(marked)
        return verified

    def _propose(
        self, number: int, done: Sequence[Verification]
    ) -> tuple[list[dict[str, Any]], dict[str, Structure]]:
        """Return the proposals of a round, chosen now or before an interruption."""
        path = self._folder(number) / "chosen.json"
        if not path.exists():
            self._search(number, done, path)
        try:
            content = read_json(path)
            structures = {
                name: parse_structure_json(text, f"{path}: {name}")
                for name, text in content["structures"].items()
            }
            return content["proposals"], structures
        except (ValueError, KeyError, TypeError) as error:
            raise RhosightError(
                f"{path}: not a list of proposals ({error}); remove this file to search again"
            ) from error

    def _search(self, number: int, done: Sequence[Verification], path: Path) -> None:
        """Search with what was learned so far, and write what was chosen."""
        models = list(self.search.models)
        dataset = _join([one.dataset() for one in done], "computed")
        if dataset is not None:
            folder = self.out / f"model-{number}"
            self.log(f"round {number}: learns from {len(dataset)} computed crystals")
            retrain(models[0], dataset, folder, self.progress)
            models.insert(0, str(folder))
        widening = measure_widening([one.table for one in done])
        for target, factor in widening.items():
            if factor > 1:
                self.log(f"round {number}: intervals of {target} are {factor:.2f} times as wide")
        found = replace(
            self.search,
            elements=self.elements,
            exclude=(),
            models=models,
            widening=widening,
            skip=self._list_verified(number),
        ).run(self._folder(number), self.progress)
        table = found.proposals.assign(**{f"{t}{WIDENING}": f for t, f in widening.items()})
        table = table.astype(object).where(table.notna(), None)
        content = {
            "proposals": table.to_dict("records"),
            "structures": {
                name: json.dumps(found.structures[name].as_dict()) for name in table.get("name", ())
            },
        }
        with replacing(path) as draft:
            draft.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    def _list_verified(self, number: int) -> list[str]:
        """Return the formulas that the ledgers of earlier rounds call verified."""
        ledgers = (Ledger(self._folder(n) / LEDGER) for n in range(1, number))
        return sorted({row["formula"] for one in ledgers for row in one.read_verified() or ()})

    def _save(self, done: Sequence[Verification]) -> Rounds:
        """Write the results of all rounds."""
        tables = [one.table.assign(round=number) for number, one in enumerate(done, 1)]
        table = pd.concat(tables, ignore_index=True)
        self._write(table, f"{VERIFIED}.csv")
        dataset = _join([one.dataset() for one in done], self.out.name)
        if dataset is not None:
            dataset.to_parquet(self.out / f"{VERIFIED}.parquet")
        rounds = Rounds(table, self.correction, dataset)
        write_verification_report(
            table, self.correction, self.search.wishes, self.out / "report.html"
        )
        return rounds

    def _write(self, table: pd.DataFrame, name: str) -> None:
        with replacing(self.out / name) as draft:
            text = table.to_csv(index=False, lineterminator="\n", float_format="%.6g")
            draft.write_text(text, encoding="utf-8")

    def _report(self, name: str, seconds: float) -> None:
        """Log a finished calculation with the time that is left."""
        self.seconds.append(seconds)
        computed = len(self.seconds)
        left = max(self.planned - self._count_files(), 0)
        mean = sum(self.seconds) / computed
        self.log(f"GPAW: {name}, {seconds:.0f} s; {left} left, about {left * mean / 60:.0f} min")

    def _count_files(self) -> int:
        folders = (self.mine.folder, self.shared.folder / "known")
        return sum(1 for folder in folders for _ in folder.rglob("*.json"))


def _join(datasets: Sequence[Dataset | None], name: str) -> Dataset | None:
    """Return one dataset of several."""
    parts = [dataset for dataset in datasets if dataset is not None]
    if not parts:
        return None
    labels = pd.concat([part.table.drop(columns="nsites", errors="ignore") for part in parts])
    densities = [density for part in parts for density in part.densities]
    return Dataset.from_densities(densities, labels, about=describe_dataset(name))
