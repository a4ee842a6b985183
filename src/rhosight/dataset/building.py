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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import RhosightError
from ..image import ImageSettings, turn_margin
from ..runs import open_run, replacing
from ..sources.source import Source
from ..text import EXTENTS
from .batches import Problems, Task
from .core import files_of
from .merging import Place, merge, places_of

if TYPE_CHECKING:
    pass

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
    out = Path(out).resolve()  # workers may stand elsewhere
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
    places, problems = _there(out, digest)
    folder = open_run(out.with_name(f"{out.name}.build"), settings)
    kept_before = set(places)
    found, problems_before = _parts(folder)
    places |= found
    problems |= problems_before
    missing = [i for i in ids if i not in places]
    seconds: Counter[str] = Counter()
    if missing:
        from .workers import open_client, outcomes

        task = Task(source, folder, tuple(texts), image, margin)
        with open_client(workers, scheduler, memory, len(missing)) as client:
            done = len(ids) - len(missing)
            for outcome in outcomes(client, task, missing):
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
        about = {"name": out.stem} | dict(source.about()) | {"build": digest}
        if image:
            about["image"] = settings["image"]
        merge(places, kept, out, about, progress)
    shutil.rmtree(folder)
    if not len(table):
        notes.unlink()
    return BuildReport(out, len(kept), len(set(kept) & set(missing)), table, dict(seconds))


def _there(out: Path, digest: str) -> tuple[dict[str, Place], Problems]:
    """What an earlier build has left: its rows, and what it said of them."""
    files = files_of(out)
    if out.is_dir() and not files and any(out.iterdir()):
        raise RhosightError(f"{out}: not empty and not a dataset; give another name")
    for file in files:
        try:
            metadata = pq.read_schema(file).metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise RhosightError(f"{file}: not a readable Parquet file; remove it") from error
        if metadata.get(b"build", b"").decode() != digest:
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
