"""Build a dataset from a source: in parallel, without losing finished work.

Workers (Dask's: processes of this machine, or of a cluster) read batches of materials. They write
each batch as one small Parquet file, with a note of its failures, into a folder beside the result.
When all batches are there, they are merged and sorted by id. An interrupted build loses only the
unfinished batches; the same command continues with the missing ones.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import RhosightError
from ...inputs.image import ImageSettings, turn_margin
from ...inputs.progress import Progress
from ...inputs.text.extents import EXTENTS, Extent
from ...storage import LOCK, lock_folder, open_run, replacing
from ..parquet import find_files
from ..sources.source import Source
from .batches import Problems, Relabel, State, Task
from .merging import Place, merge, places_of, restore

MEMORY = "2GiB"
"""Memory limit of a worker. A 60³ density takes a few MB; 400³ with its texts still fits."""

GONE = "no longer in the source; its row was removed"


@dataclass(frozen=True)
class BuildReport:
    """Report what :func:`build` did.

    Attributes
    ----------
    path
        The dataset: a Parquet file, or a folder of such files.
    materials
        Number of its materials.
    added
        Number of materials that were not there before.
    problems
        Columns material_id, step ("source", "read", "image", "text <extent>", "labels"), problem.
        Also in ``<path>.problems.csv``. A material whose text failed is in the dataset, without it.
    seconds
        Step → worker time of this call, seconds.
    replaced
        Number of materials read again, since their files have changed.
    relabelled
        Number of materials that only got new labels, since the table has changed.
    masked
        Label → number of its values that were masked as impossible; the dataset's ``masked`` has
        the reasons.
    notes
        Material → peculiarities of its density, such as its number of electrons.
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
        ``x.parquet`` is one file; any other name is a folder of files of 992 materials each. A
        dataset of an earlier build with the same settings is updated: new and changed materials
        are read, a changed table only gives new labels, and materials that the source no longer
        has are removed and listed. Same input, same bytes.
    texts
        Extents of the descriptions to add; texts of the source are used as they are.
    image
        Draw each density with these settings and store the image (column ``image``). Models whose
        recipe has the same settings read it instead of drawing their own.
    margin
        Also store the margin that training with augmentation needs.
    workers
        Number of processes on this machine; by default one per core.
    scheduler
        Address of a running Dask scheduler (``tcp://host:8786``) to use instead. Its workers must
        see the same files.
    memory
        Limit of each local worker. A worker that exceeds it is restarted, and the material that
        caused it becomes a problem. A cluster's workers have their own limit.
    progress
        Called after each batch.

    Raises
    ------
    RhosightError
        If ``out`` holds a dataset with other settings, no material could be read, or the
        scheduler does not answer.
    """
    _check_memory(memory)
    return _Build(source, Path(out).resolve(), texts, image, margin).run(
        _Pool(workers, scheduler, memory), progress
    )


class _Pool(NamedTuple):
    """Set the number of workers, address of a scheduler, and memory limit."""

    workers: int | None
    scheduler: str | None
    memory: str


class _Build:
    """Run :func:`build` once."""

    def __init__(
        self,
        source: Source,
        out: Path,
        texts: Sequence[str],
        image: ImageSettings | None,
        margin: bool,
    ) -> None:
        if not out.parent.is_dir():
            raise RhosightError(f"{out}: the folder {out.parent} does not exist; create it first")
        if unknown := set(texts) - set(EXTENTS):
            raise RhosightError(
                f"unknown extent of text {min(unknown)}; choose from {', '.join(EXTENTS)}"
            )
        self.source, self.out = source, out
        self.ids = source.ids()
        self.texts = cast("tuple[Extent, ...]", tuple(texts))  # as the check above ensures
        self.image, self.margin = image, margin
        self.settings = {
            "source": source.name,
            "settings": source.settings(),
            "texts": sorted(texts),
            "image": None,
        }
        if image:
            pad = turn_margin(image.size) if margin else 0
            self.settings["image"] = {"settings": image.model_dump(mode="json"), "pad": pad}
        # a dataset stores only the digest: the settings name private folders of this machine
        text = json.dumps(self.settings, sort_keys=True)
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.notes = out.with_name(f"{out.name}.problems.csv")
        self.folder = out.with_name(f"{out.name}.build")
        self.states: dict[str, State] = {}

    def run(self, pool: _Pool, progress: Progress | None) -> BuildReport:
        with lock_folder(self.folder):
            restore(self.out)
            files = _check_existing(self.out, self.digest)
            open_run(self.folder, self.settings)
            self.states = {i: State.of(self.source, i) for i in self.ids}
            before = {material_id for material_id, _, _ in places_of(files)}
            rows = self._find_rows(files)
            missing = [i for i in self.ids if i not in rows.current and i not in rows.outdated]
            outdated = sorted(rows.outdated)
            problems: Problems = {}
            seconds: Counter[str] = Counter()
            if missing or outdated:
                problems = self._work(rows, missing, pool, seconds, progress)
                rows = self._find_rows(files)
            table = self._list_problems(problems | rows.problems, before)
            kept = sorted(rows.current)
            self._finish(rows, files, before, table, progress)
            for path in self.folder.iterdir():
                if path.name != LOCK:
                    path.unlink()
        if not len(table):
            self.notes.unlink()
        return BuildReport(
            self.out,
            materials=len(kept),
            added=len(set(kept) - before),
            problems=table,
            seconds=dict(seconds),
            replaced=len(set(kept) & before & set(missing)),
            relabelled=len(set(kept) & set(outdated)),
            masked=_count_masked(self.out),
            notes=_read_density_notes(self.out),
        )

    def _work(
        self,
        rows: _Rows,
        missing: list[str],
        pool: _Pool,
        seconds: Counter[str],
        progress: Progress | None,
    ) -> Problems:
        """Let workers read the missing materials and relabel the outdated rows."""
        from .workers import open_client, run_batches

        source, states, folder = self.source, self.states, self.folder
        relabel = Relabel(source, states, folder, rows.outdated, rows.problems)
        read = Task(source, states, folder, self.texts, self.image, self.margin)
        count = len(missing) + len(rows.outdated)
        done = len(self.ids) - count
        problems: Problems = {}
        with open_client(*pool, count) as client:
            relabelled = run_batches(client, relabel, sorted(rows.outdated))
            for outcome in chain(relabelled, run_batches(client, read, missing)):
                seconds.update(outcome.seconds)
                problems |= outcome.problems
                done += len(outcome.ids)
                if progress:
                    progress("materials", done, len(self.ids))
        return problems

    def _list_problems(self, problems: Problems, before: set[str]) -> pd.DataFrame:
        """Add the problems of the source, and write the table."""
        problems |= {i: [("source", GONE)] for i in before - set(self.ids)}
        problems |= {i: [("source", why)] for i, why in self.source.problems().items()}
        rows = [(i, step, why) for i in sorted(problems) for step, why in problems[i]]
        return pd.DataFrame(rows, columns=["material_id", "step", "problem"])

    def _finish(
        self,
        rows: _Rows,
        files: Sequence[Path],
        before: set[str],
        table: pd.DataFrame,
        progress: Progress | None,
    ) -> None:
        """Write the problems, and merge the rows unless the dataset is up to date."""
        kept = sorted(rows.current)
        if not kept:
            first = table["problem"].iloc[0] if len(table) else "the source is empty"
            raise RhosightError(
                f"{self.out}: no material could be read; the first problem: {first}"
            )
        with replacing(self.notes) as draft:
            table.to_csv(draft, index=False)
        is_unchanged = {place.file for place in rows.current.values()} <= set(files)
        if set(kept) == before and is_unchanged:
            return
        about = {"name": self.out.stem} | dict(self.source.about()) | {"build": self.digest}
        if self.image:
            about["image"] = self.settings["image"]
        merge(rows.current, kept, self.out, about, progress)

    def _find_rows(self, files: Sequence[Path]) -> _Rows:
        """Look for rows in the files of the dataset and in those of the workers."""
        noted: dict[Path, Problems] = dict.fromkeys(files, _read_problems(self.notes))
        for part in sorted(p for p in self.folder.glob("*.parquet") if p.name[0] != "."):
            try:
                known = json.loads((pq.read_schema(part).metadata or {}).get(b"problems", b"{}"))
            except (pa.ArrowException, OSError):  # truncated by a crash of the machine
                continue
            noted[part] = {i: [(step, why) for step, why in known[i]] for i in known}
        current: dict[str, Place] = {}
        outdated: dict[str, Place] = {}
        for material_id, place, provenance in places_of(list(noted)):
            was, now = State.in_provenance(provenance), self.states.get(material_id)
            if now is None or was.input != now.input:
                continue
            steps = [step for step, _ in noted[place.file].get(material_id, ())]
            if place.file in files and any(step.startswith("text ") for step in steps):
                continue  # try failed texts again
            (current if was.table == now.table else outdated)[material_id] = place
        outdated = {i: place for i, place in outdated.items() if i not in current}
        problems = {
            i: noted[place.file][i]
            for i, place in {**outdated, **current}.items()
            if i in noted[place.file]
        }
        return _Rows(current, outdated, problems)


class _Rows(NamedTuple):
    """Sort the rows of earlier builds.

    ``current`` rows are up to date; ``outdated`` rows lack the labels of a changed table.
    ``problems`` holds the known problems of both.
    """

    current: dict[str, Place]
    outdated: dict[str, Place]
    problems: Problems


def _count_masked(out: Path) -> dict[str, int]:
    """Return label → number of its masked values in the dataset."""
    texts = chain.from_iterable(
        pq.read_table(file, columns=["masked"])["masked"].to_pylist() for file in find_files(out)
    )
    return dict(Counter(name for text in texts for name in json.loads(text or "{}")))


def _read_density_notes(out: Path) -> dict[str, list[str]]:
    """Return material → notes of the reader of its density."""
    columns = ["material_id", "provenance"]
    rows = chain.from_iterable(
        zip(*(table[name].to_pylist() for name in columns), strict=True)
        for table in (pq.read_table(file, columns=columns) for file in find_files(out))
    )
    all_notes = {name: json.loads(text or "{}").get("notes", []) for name, text in rows}
    return {name: notes for name, notes in all_notes.items() if notes}


def _check_memory(memory: str) -> None:
    from dask.utils import parse_bytes  # slow to import

    try:
        parse_bytes(memory)
    except ValueError as error:
        raise RhosightError(
            f"{memory}: not an amount of memory (--memory); give one such as 2GiB"
        ) from error


def _check_existing(out: Path, digest: str) -> list[Path]:
    """Return the files of an earlier build.

    Raises
    ------
    RhosightError
        If the place holds something else, or a dataset built with other settings.
    """
    files = find_files(out)
    if out.is_dir() and not files and any(out.iterdir()):
        raise RhosightError(f"{out}: not empty and not a dataset; choose another name")
    for file in files:
        try:
            metadata = pq.read_schema(file).metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise RhosightError(f"{file}: not a readable Parquet file; remove it") from error
        if metadata.get(b"build", b"").decode() != digest:
            raise RhosightError(
                f"{out}: exists already, built with other settings (source, texts, image or "
                "reading options); choose another name, or remove it"
            )
    return files


def _read_problems(notes: Path) -> Problems:
    """Read the problems that an earlier build noted about the rows of its dataset."""
    problems: Problems = {}
    if notes.exists():
        for row in pd.read_csv(notes, dtype=str).itertuples():
            problem = str(row.step), str(row.problem)
            problems.setdefault(str(row.material_id), []).append(problem)
    return problems
