"""Predict candidates in batches: in this process, in several, or on Dask workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from ..density.structure_json import parse_structure_json
from ..errors import RhosightError
from ..inputs.progress import Progress
from ..models.base import SavedModel
from ..models.folder import BUNDLED_MODELS
from ..models.loading import load_model
from .ledger import Ledger
from .own_types import join_types
from .prototypes import Prototype, load_library
from .screening import Screening
from .space import Candidate, Space
from .volume import load_volume_model
from .wishes import read_wishes

if TYPE_CHECKING:
    from distributed import Client

BATCH = 64
"""Candidates that are predicted at once."""

KILLED = (
    "a process that predicts candidates was killed, most likely for its memory use; give fewer "
    "--workers, or workers of Dask more memory, and repeat the command: it continues from here"
)

_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class Setup:
    """Inputs of a process that predicts candidates.

    Attributes
    ----------
    models
        Name of each model, and its folder or name: absolute, since workers may have another current
        folder.
    wishes
        Texts of wishes.
    crystals
        Name and JSON of crystals whose structure types are occupied; of none, the bundled types.
    with_bundled
        Occupy the bundled structure types, too.
    weights
        Folder and SHA-256 of each model of the user's: one that was trained again is loaded again.
    widening
        Target and factor, see :attr:`rhosight.design.screening.Screening.widening`.
    """

    models: tuple[tuple[str, str], ...]
    wishes: tuple[str, ...]
    crystals: tuple[tuple[str, str], ...] = ()
    with_bundled: bool = True
    weights: tuple[tuple[str, str], ...] = ()
    widening: tuple[tuple[str, float], ...] = ()


@lru_cache(maxsize=1)
def load_screening(setup: Setup) -> Screening:
    """Load models and structure types; each process does it once."""
    library = load_library()
    prototypes: Sequence[Prototype] = ()
    if setup.crystals:
        crystals = {name: parse_structure_json(text, name) for name, text in setup.crystals}
        library, prototypes = join_types(library, crystals, setup.with_bundled)
    return Screening(
        load_models(setup.models),
        read_wishes(setup.wishes),
        Space(library, (), prototypes),
        load_volume_model(),
        widening=dict(setup.widening),
    )


def load_models(models: Sequence[tuple[str, str]]) -> dict[str, SavedModel]:
    """Return name → model of pairs of name and place."""
    return {name: _load(place) for name, place in models}


def _load(name: str) -> SavedModel:
    """Load a model; one that comes with the package stays for later searches."""
    return _load_bundled(name) if name in BUNDLED_MODELS else load_model(name)


_load_bundled = cache(load_model)


def known_elements(models: Mapping[str, SavedModel]) -> set[str]:
    """Return the elements that the models and the model of volumes have learned from."""
    known = set(load_volume_model().elements)
    for model in models.values():
        own: Any = getattr(model, "known_elements", None)
        if own:
            known &= set(own)
    return known


def evaluate(setup: Setup, candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return the rows of a batch of candidates for the ledger."""
    with _ONE_AT_A_TIME:  # a Dask worker may have several threads
        return load_screening(setup).evaluate(candidates)


@dataclass
class Predictor:
    """Predicts candidates that the ledger does not have yet.

    Attributes
    ----------
    setup
        Inputs of each process.
    ledger
        Keeps the rows.
    workers
        Processes on this machine.
    scheduler
        Address of a Dask scheduler, whose workers are used instead.
    total
        Number of candidates in all, for the progress.
    progress
        Called with (label, done, all).
    """

    setup: Setup
    ledger: Ledger
    workers: int
    scheduler: str | None
    total: int
    progress: Progress | None
    _names: list[list[str]] = field(default_factory=list)
    _client: Client | None = None

    @contextmanager
    def connect(self) -> Iterator[None]:
        """Connect to the scheduler, if one is given.

        Raises
        ------
        RhosightError
            If no scheduler answers, or it has no workers.
        """
        if not self.scheduler:
            yield
            return
        from ..dataset.build.workers import connect

        with connect(self.scheduler, "this machine") as client:
            if not client.nthreads():
                raise RhosightError(
                    f"{self.scheduler}: has no workers; start some with `dask worker`"
                )
            self._client = client
            try:
                yield
            finally:
                self._client = None

    def predict(self, candidates: Sequence[Candidate]) -> range:
        """Write the rows of candidates to the ledger; return the numbers of their batches.

        Only the ledger keeps the rows.
        """
        batches = [candidates[at : at + BATCH] for at in range(0, len(candidates), BATCH)]
        numbers = range(len(self._names), len(self._names) + len(batches))
        self._names += [[candidate.name for candidate in batch] for batch in batches]
        missing = [number for number in numbers if self._read(number) is None]
        done = sum(map(len, self._names)) - sum(len(self._names[number]) for number in missing)
        tasks = [batches[number - numbers.start] for number in missing]
        for number, rows in zip(missing, self._evaluate(tasks), strict=True):
            self.ledger.write(number, rows)
            done += len(rows)
            if self.progress:
                self.progress("candidates", done, self.total)
        return numbers

    def table(self, numbers: range | None = None) -> pd.DataFrame:
        """Return the rows of batches, of all by default, in the order of their prediction."""
        tables = []
        for number in range(len(self._names)) if numbers is None else numbers:
            rows = self._read(number) or []
            names = dict.fromkeys(name for row in rows for name in row)
            tables.append(pa.table({name: [row.get(name) for row in rows] for name in names}))
        if not tables:
            return pd.DataFrame()
        return pa.concat_tables(tables, promote_options="permissive").to_pandas()

    def _read(self, number: int) -> list[dict[str, Any]] | None:
        return self.ledger.read(number, self._names[number])

    def _evaluate(self, batches: Sequence[Sequence[Candidate]]) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of batches in their order.

        Raises
        ------
        RhosightError
            If a process is killed.
        """
        if self._client:
            yield from self._evaluate_on_cluster(self._client, batches)
            return
        if self.workers == 1 or len(batches) < 2:
            yield from (evaluate(self.setup, batch) for batch in batches)
            return
        from joblib import Parallel, delayed

        pool = Parallel(self.workers, return_as="generator", pre_dispatch="2*n_jobs", batch_size=1)
        try:
            yield from pool(delayed(evaluate)(self.setup, batch) for batch in batches)
        except BrokenProcessPool as error:
            raise RhosightError(KILLED) from error

    def _evaluate_on_cluster(
        self, client: Client, batches: Sequence[Sequence[Candidate]]
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of batches in their order; a bounded number is under way."""
        from distributed import KilledWorker

        running: deque[Any] = deque()
        try:
            for batch in batches:
                running.append(client.submit(evaluate, self.setup, batch, pure=False))
                if len(running) > 2 * max(1, sum(client.nthreads().values())):
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except KilledWorker as error:
            raise RhosightError(KILLED) from error
