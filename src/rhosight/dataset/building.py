"""Building a dataset from a source: many materials, in parallel, without losing any work.

Workers (Dask's: processes of this machine, or a cluster's) read batches of materials and leave each
as one small Parquet file, with a note of what failed, in a folder beside the result. When all are
there they are merged, sorted by id. Whatever ends the build before that costs the batches in
flight; the same command goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..density import ChargeDensity
from ..errors import RhosightError
from ..image import ImageSettings, density_image, turn_margin
from ..runs import open_run, replacing
from ..sources.source import Entry, Source
from ..text import EXTENTS, describe
from .core import parquet_options
from .merging import Place, files_of, merge, places_of
from .table import build_table

if TYPE_CHECKING:
    from distributed import Client

PART_LEVEL = 1
"""zstd's, of what is kept only until the end of the build."""

CONNECT_SECONDS = 20

KILLED = (
    "its worker was killed several times while it was read, most likely for the memory it took; "
    "give workers more (--memory), or leave this material out"
)

MEMORY = "2GiB"
"""Of a worker. A 60³ density takes a few MB; 400³ with its texts still fits."""


@dataclass(frozen=True)
class BuildReport:
    """What :func:`build` did.

    Attributes
    ----------
    path
        The dataset: a Parquet file, or a folder of them.
    materials
        How many it holds.
    added
        How many of them this call read; the others were there already.
    problems
        Columns material_id, step ("source", "read", "text <extent>", "image"), problem. Also in
        ``<path>.problems.csv``. A material whose text failed is in the dataset, without it.
    seconds
        Step → worker time of this call, seconds.
    """

    path: Path
    materials: int
    added: int
    problems: pd.DataFrame
    seconds: Mapping[str, float] = field(default_factory=dict)


def build(
    source: Source,
    out: str | Path,
    texts: Sequence[str] = EXTENTS,
    image: ImageSettings | None = None,
    margin: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    memory: str = MEMORY,
    progress: Callable[[str, int, int], None] | None = None,
) -> BuildReport:
    """Read every material of a source and write a dataset.

    Parameters
    ----------
    source
        See :mod:`rhosight.sources`.
    out
        ``x.parquet`` is one file; any other name a folder of files of 992 materials each. If it
        is there, made by the same settings, only what it lacks is read. Same input, same bytes.
    texts
        Extents to describe each structure in; those that the source brings are used.
    image
        Draw each density so as well and store the image (column ``image``). Models whose recipe
        has these settings read it instead of drawing their own.
    margin
        Store the margin as well that training with augmentation needs.
    workers
        Processes on this machine; one for each core if not given.
    scheduler
        Address of a running Dask scheduler (``tcp://host:8786``) to use in their place. Its workers
        must see the same files.
    memory
        Limit of each local worker; one that exceeds it is started anew, and the material that made
        it is a problem. A cluster's workers have their own limit.
    progress
        Called with (label, done, all).

    Raises
    ------
    RhosightError
        If ``out`` holds a dataset made by other settings, no material could be read, or the
        scheduler does not answer.
    """
    out = Path(out)
    if not out.parent.is_dir():
        raise RhosightError(f"{out}: no folder {out.parent} to write to; make it first")
    unknown = set(texts) - set(EXTENTS)
    if unknown:
        raise RhosightError(f"unknown extent of text {min(unknown)}; known: {', '.join(EXTENTS)}")
    ids = source.ids()
    settings = {
        "source": source.name,
        "settings": source.settings(),
        "texts": sorted(texts),
        "image": None,
    }
    if image:
        pad = turn_margin(image.size) if margin else 0
        settings["image"] = {"settings": image.model_dump(mode="json"), "pad": pad}
    places, problems = _there(out, settings)
    folder = open_run(out.with_name(f"{out.name}.build"), settings)
    kept_before = set(places)
    found, problems_before = _parts(folder)
    places |= found
    problems |= problems_before
    missing = [i for i in ids if i not in places]
    seconds: Counter[str] = Counter()
    if missing:
        task = _Task(source, folder, tuple(texts), image, margin)
        with _client(workers, scheduler, memory, len(missing)) as client:
            done = len(ids) - len(missing)
            for outcome in _outcomes(client, task, missing):
                seconds.update(outcome.seconds)
                problems |= outcome.problems
                done += len(outcome.ids)
                if progress:
                    progress("materials", done, len(ids))
        places |= _parts(folder)[0]
    problems |= {i: [("source", why)] for i, why in source.problems().items()}
    table = _problem_table(problems)
    kept = sorted(set(ids) & set(places))
    if not kept:
        first = table["problem"].iloc[0] if len(table) else "the source is empty"
        raise RhosightError(f"{out}: no material could be read; the first problem: {first}")
    notes = out.with_name(f"{out.name}.problems.csv")
    with replacing(notes) as draft:
        table.to_csv(draft, index=False)
    if set(kept) != kept_before:
        about = {"name": out.stem} | dict(source.about()) | {"build": settings}
        if image:
            about["image"] = settings["image"]
        merge(places, kept, out, about, progress)
    shutil.rmtree(folder)
    if not len(table):
        notes.unlink()
    return BuildReport(out, len(kept), len(set(kept) & set(missing)), table, dict(seconds))


Problems = dict[str, list[tuple[str, str]]]
"""Material id → (step, problem) of each."""


def _there(out: Path, settings: dict[str, Any]) -> tuple[dict[str, Place], Problems]:
    """What an earlier build has left: its rows, and what it said of them."""
    files = files_of(out)
    if out.is_dir() and not files and any(out.iterdir()):
        raise RhosightError(f"{out}: not empty and not a dataset; give another name")
    for file in files:
        try:
            metadata = pq.read_schema(file).metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise RhosightError(f"{file}: not a readable Parquet file; remove it") from error
        made_by = json.loads(metadata.get(b"build", b"null"))
        if made_by != json.loads(json.dumps(settings)):
            raise RhosightError(
                f"{out}: is there already, made in another way; give another name, or remove it"
            )
    problems: Problems = {}
    places = places_of(files)
    notes = out.with_name(f"{out.name}.problems.csv")
    if files and notes.exists():
        for row in pd.read_csv(notes, dtype=str).itertuples():
            if row.material_id in places:
                problems.setdefault(row.material_id, []).append((row.step, row.problem))
    return places, problems


def _parts(folder: Path) -> tuple[dict[str, Place], Problems]:
    """What workers have left so far."""
    files = sorted(file for file in folder.glob("*.parquet") if file.name[0] != ".")
    problems: Problems = {}
    for file in files:
        found = json.loads((pq.read_schema(file).metadata or {}).get(b"problems", b"{}"))
        problems |= {i: [tuple(row) for row in rows] for i, rows in found.items()}
    return places_of(files), problems


def _problem_table(problems: Problems) -> pd.DataFrame:
    rows = [(i, step, why) for i in sorted(problems) for step, why in problems[i]]
    return pd.DataFrame(rows, columns=["material_id", "step", "problem"])


@contextmanager
def _client(
    workers: int | None, scheduler: str | None, memory: str, materials: int
) -> Iterator[Client]:
    """Dask's client, of a running scheduler or of processes that end with the build."""
    from distributed import Client, LocalCluster

    if scheduler:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise RhosightError(
                f"{scheduler}: no Dask scheduler answers there ({type(error).__name__}); start one "
                "with `dask scheduler`, or leave out --scheduler to use this machine"
            ) from error
        with client:
            yield client
        return
    count = min(workers or os.cpu_count() or 1, materials)
    with (
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=memory,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _outcomes(client: Client, task: _Task, ids: list[str]) -> Iterator[_Outcome]:
    """Run all batches, a bounded number at a time, in whatever order they finish."""
    from distributed import KilledWorker, as_completed

    # every worker, also one that is started later, gets the task once
    plugin = _TaskPlugin(task)
    client.register_plugin(plugin)
    batches = (ids[i : i + task.source.batch] for i in range(0, len(ids), task.source.batch))
    running = as_completed()
    owners = {}

    def submit(batch: list[str]) -> None:
        future = client.submit(_run, plugin.name, batch, pure=False)
        owners[future.key] = batch
        running.add(future)

    for batch in itertools.islice(batches, 2 * max(1, sum(client.nthreads().values()))):
        submit(batch)
    for future in running:
        batch = owners.pop(future.key)
        try:
            outcome = future.result()
        except KilledWorker:
            if len(batch) > 1:  # one of them is to blame: each on its own
                for material_id in batch:
                    submit([material_id])
                continue
            outcome = _Outcome(batch, {batch[0]: [("read", KILLED)]}, {})
        if following := next(batches, None):
            submit(following)
        yield outcome


class _TaskPlugin:
    """Carries the task to the workers."""

    def __init__(self, task: _Task) -> None:
        self.task = task
        self.name = f"rhosight-{uuid.uuid4().hex}"

    def setup(self, worker: Any) -> None: ...

    def teardown(self, worker: Any) -> None: ...


def _run(plugin: str, ids: list[str]) -> _Outcome:
    from distributed import get_worker

    return get_worker().plugins[plugin].task.run(ids)


@dataclass(frozen=True)
class _Outcome:
    """What became of one batch."""

    ids: list[str]
    problems: Problems
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Task:
    """All that a worker needs to turn ids into a part."""

    source: Source
    folder: Path
    texts: tuple[str, ...]
    image: ImageSettings | None
    margin: bool

    def part(self, ids: Sequence[str]) -> Path:
        """The file of a batch."""
        name = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
        return self.folder / f"{name}.parquet"

    def run(self, ids: list[str]) -> _Outcome:
        """Read a batch, write its part. Nothing that a material does stops the others."""
        clock = _Clock()
        problems: Problems = {}
        entries: list[Entry] = []
        texts: dict[str, dict[str, str]] = {}
        images: list[np.ndarray | None] = []
        for material_id in ids:
            step = "read"
            try:
                with clock("read"):
                    entry = self.source.read(material_id)
                step = "image"
                with clock("image"):
                    drawn = self._draw(entry.density)
                with clock("text"):
                    texts[material_id], failed = self._describe(entry)
            except RhosightError as error:
                problems[material_id] = [(step, str(error))]
            except Exception as error:  # a library's failure on one file must not end the build
                reason = " ".join(str(error).split())[:200]
                problems[material_id] = [(step, f"{type(error).__name__}: {reason}")]
            else:
                entries.append(entry)
                images.append(drawn)
                if failed:
                    problems[material_id] = failed
        with clock("write"):
            self._write(ids, entries, texts, images, problems)
        return _Outcome(ids, problems, clock.seconds)

    def _draw(self, density: ChargeDensity) -> np.ndarray | None:
        if self.image is None:
            return None
        return density_image(density, self.image, turn_margin(self.image.size) * self.margin)

    def _describe(self, entry: Entry) -> tuple[dict[str, str], list[tuple[str, str]]]:
        name, found, failed = entry.density.name, {}, []
        for extent in self.texts:
            try:
                found[extent] = entry.texts.get(extent) or describe(
                    entry.density.structure, extent, name
                )
            except RhosightError as error:
                failed.append((f"text {extent}", str(error)))
        return found, failed

    def _write(
        self,
        ids: list[str],
        entries: list[Entry],
        texts: dict[str, dict[str, str]],
        images: list[np.ndarray | None],
        problems: Problems,
    ) -> None:
        if not entries:
            return
        densities = [entry.density for entry in entries]
        labels = pd.DataFrame(
            [dict(entry.labels) for entry in entries],
            index=pd.Index([density.name for density in densities], name="material_id"),
        )
        table = build_table(densities, labels, texts)
        if self.image:
            flat = [np.ravel(image).astype(np.float16) for image in images]
            table = table.append_column("image", pa.array(flat, pa.list_(pa.float16())))
        names = {entry.density.name for entry in entries}
        about = {i: found for i, found in problems.items() if i in names}
        table = table.replace_schema_metadata({"problems": json.dumps(about, ensure_ascii=False)})
        with replacing(self.part(ids)) as draft:
            pq.write_table(table, draft, row_group_size=1, **parquet_options(PART_LEVEL))


class _Clock:
    """Seconds spent in each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[step] = self.seconds.get(step, 0.0) + spent
