"""Building a dataset from a source: many materials, in parallel, without losing any work.

Workers (Dask's: processes of this machine, or a cluster's) read batches of materials and leave each
as one small Parquet file, with a note of what failed, in a folder beside the result. When all are
there they are merged, sorted by id. Whatever ends the build before that costs the batches in
flight; the same command goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import RhosightError
from ...inputs.image import ImageSettings, turn_margin
from ...inputs.progress import Progress
from ...inputs.text.description import EXTENTS
from ...storage import lock_folder, open_run, replacing
from ..parquet import find_files
from ..sources.source import Source
from .batches import Problems, Relabel, State, Task
from .merging import Place, merge, places_of, restore

MEMORY = "2GiB"
"""Of a worker. A 60³ density takes a few MB; 400³ with its texts still fits."""

GONE = "no longer in the source; its row was removed"


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
        How many of them were not there before.
    problems
        Columns material_id, step ("source", "read", "image", "text <extent>", "labels"), problem.
        Also in ``<path>.problems.csv``. A material whose text failed is in the dataset, without it.
    seconds
        Step → worker time of this call, seconds.
    replaced
        How many were read again, since their files have changed.
    relabelled
        How many have new labels alone, since the table has changed.
    masked
        Label → how many of its values were left out, since they cannot be right; the dataset's
        ``masked`` has the reasons.
    notes
        Material → what is odd about its density, such as its number of electrons.
    """

    path: Path
    materials: int
    added: int
    problems: pd.DataFrame
    seconds: Mapping[str, float] = field(default_factory=dict)
    replaced: int = 0
    relabelled: int = 0
    masked: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def build(
    source: Source,
    out: str | Path,
    texts: Sequence[str] = EXTENTS,
    image: ImageSettings | None = None,
    margin: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    memory: str = MEMORY,
    progress: Progress | None = None,
) -> BuildReport:
    """Read every material of a source and write a dataset.

    Parameters
    ----------
    source
        See :mod:`rhosight.dataset.sources`.
    out
        ``x.parquet`` is one file; any other name a folder of files of 992 materials each. If it
        is there, made by the same settings, it is brought up to date: read is what it lacks and
        what has changed since, a changed table only gives new labels, and what the source no
        longer has is removed and listed. Same input, same bytes.
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
    out = Path(out).resolve()  # workers may stand elsewhere
    _check_memory(memory)
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
    # the settings name folders of this machine, which are nobody else's business
    text = json.dumps(settings, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    notes, folder = (out.with_name(f"{out.name}.{end}") for end in ("problems.csv", "build"))
    with lock_folder(folder):
        restore(out)
        files = _check(out, digest)
        open_run(folder, settings)
        states = {material_id: State.of(source, material_id) for material_id in ids}
        before = {material_id for material_id, _, _ in places_of(files)}
        there = _find(files, notes, folder, states)
        missing = [i for i in ids if i not in there.current and i not in there.older]
        jobs = (
            (Relabel(source, states, folder, there.older, there.problems), sorted(there.older)),
            (Task(source, states, folder, tuple(texts), image, margin), missing),
        )
        problems: Problems = {}
        seconds: Counter[str] = Counter()
        if missing or there.older:
            from .workers import open_client, outcomes

            count = len(missing) + len(there.older)
            with open_client(workers, scheduler, memory, count) as client:
                done = len(ids) - count
                for outcome in chain.from_iterable(outcomes(client, job, i) for job, i in jobs):
                    seconds.update(outcome.seconds)
                    problems |= outcome.problems
                    done += len(outcome.ids)
                    if progress:
                        progress("materials", done, len(ids))
            there = _find(files, notes, folder, states)
        problems |= there.problems
        problems |= {i: [("source", GONE)] for i in before - set(ids)}
        problems |= {i: [("source", why)] for i, why in source.problems().items()}
        table = _problem_table(problems)
        kept = sorted(there.current)
        if not kept:
            first = table["problem"].iloc[0] if len(table) else "the source is empty"
            raise RhosightError(f"{out}: no material could be read; the first problem: {first}")
        with replacing(notes) as draft:
            table.to_csv(draft, index=False)
        as_it_is = {place.file for place in there.current.values()} <= set(files)
        if set(kept) != before or not as_it_is:
            about = {"name": out.stem} | dict(source.about()) | {"build": digest}
            if image:
                about["image"] = settings["image"]
            merge(there.current, kept, out, about, progress)
    shutil.rmtree(folder)
    if not len(table):
        notes.unlink()
    return BuildReport(
        out,
        materials=len(kept),
        added=len(set(kept) - before),
        problems=table,
        seconds=dict(seconds),
        replaced=len(set(kept) & before & set(missing)),
        relabelled=len(set(kept) & set(jobs[0][1])),
        masked=_masked(out),
        notes=_notes(out),
    )


def _masked(out: Path) -> dict[str, int]:
    """Label → how many of its values the dataset has masked."""
    texts = chain.from_iterable(
        pq.read_table(file, columns=["masked"])["masked"].to_pylist() for file in find_files(out)
    )
    return dict(Counter(name for text in texts for name in json.loads(text or "{}")))


def _notes(out: Path) -> dict[str, list[str]]:
    """Material → notes that its density's reader has left."""
    columns = ["material_id", "provenance"]
    rows = chain.from_iterable(
        zip(*(table[name].to_pylist() for name in columns), strict=True)
        for table in (pq.read_table(file, columns=columns) for file in find_files(out))
    )
    found = {name: json.loads(text or "{}").get("notes", []) for name, text in rows}
    return {name: notes for name, notes in found.items() if notes}


def _check_memory(memory: str) -> None:
    from dask.utils import parse_bytes  # takes a moment to load

    try:
        parse_bytes(memory)
    except ValueError as error:
        raise RhosightError(f"{memory}: no amount of memory (--memory); give one: 2GiB") from error


def _check(out: Path, digest: str) -> list[Path]:
    """The files of the dataset that an earlier build with these settings has left."""
    files = find_files(out)
    if out.is_dir() and not files and any(out.iterdir()):
        raise RhosightError(f"{out}: not empty and not a dataset; give another name")
    for file in files:
        try:
            metadata = pq.read_schema(file).metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise RhosightError(f"{file}: not a readable Parquet file; remove it") from error
        if metadata.get(b"build", b"").decode() != digest:
            raise RhosightError(
                f"{out}: is there already, made in another way (another source, other texts, image "
                "or options of reading); give another name, or remove it"
            )
    return files


@dataclass(frozen=True)
class _There:
    """Rows that earlier builds have left: as they should be, and those that only lack the labels of
    a table that has changed; and what was said of both."""

    current: dict[str, Place]
    older: dict[str, Place]
    problems: Problems


def _find(files: Sequence[Path], notes: Path, folder: Path, states: Mapping[str, State]) -> _There:
    """Look for rows in the files of a dataset, and in what workers have left so far."""
    said: dict[Path, Problems] = dict.fromkeys(files, _read_notes(notes))
    for part in sorted(file for file in folder.glob("*.parquet") if file.name[0] != "."):
        try:
            found = json.loads((pq.read_schema(part).metadata or {}).get(b"problems", b"{}"))
        except (pa.ArrowException, OSError):  # cut short by a machine that went down
            continue
        said[part] = {i: [tuple(row) for row in rows] for i, rows in found.items()}
    current: dict[str, Place] = {}
    older: dict[str, Place] = {}
    for material_id, place, provenance in places_of(said):
        was, now = State.in_provenance(provenance), states.get(material_id)
        if now is None or was.input != now.input:
            continue
        steps = [step for step, _ in said[place.file].get(material_id, ())]
        if place.file in files and any(step.startswith("text ") for step in steps):
            continue  # what failed is tried again
        (current if was.table == now.table else older)[material_id] = place
    older = {i: place for i, place in older.items() if i not in current}
    usable = {**older, **current}
    problems = {i: said[p.file][i] for i, p in usable.items() if i in said[p.file]}
    return _There(current, older, problems)


def _read_notes(notes: Path) -> Problems:
    """What an earlier build said of the rows of its dataset."""
    problems: Problems = {}
    if notes.exists():
        for row in pd.read_csv(notes, dtype=str).itertuples():
            problems.setdefault(row.material_id, []).append((row.step, row.problem))
    return problems


def _problem_table(problems: Problems) -> pd.DataFrame:
    rows = [(i, step, why) for i in sorted(problems) for step, why in problems[i]]
    return pd.DataFrame(rows, columns=["material_id", "step", "problem"])
