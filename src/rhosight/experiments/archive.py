"""Pack finished jobs into one file per repeat, and unpack them on another machine.

    FOLDER/jobs/repeat-0.parquet    predictions and histories of all jobs of a repeat

Each row belongs to one job. The settings of the jobs and their run times are in the metadata of the
file. Weights are not kept, because no finished job needs them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import RhosightError
from ..storage import replacing
from .jobs import RESULT, JobFolder, job_folders

_ABOUT = b"rhosight.jobs"
_PARTS = ("predictions", "history")


def pack_jobs(folder: JobFolder, out: Path) -> list[Path]:
    """Write all finished jobs of a run folder into ``out``, one file per repeat.

    Predictions are rounded to single precision (7 digits), more than the precision of networks.

    Returns
    -------
    The files. A file with the same content is not written again.
    """
    repeats: dict[int, list[Path]] = {}
    for path in job_folders(folder.folder, RESULT):
        repeat = _read_json(path / "job.json")["split"]["repeat"]
        repeats.setdefault(repeat, []).append(path)
    files = []
    for repeat, paths in sorted(repeats.items()):
        file = out / f"repeat-{repeat}.parquet"
        about = {
            p.name: {"job": _read_json(p / "job.json"), "result": _read_result(p)} for p in paths
        }
        if not file.exists() or _read_about(file) != about:
            out.mkdir(parents=True, exist_ok=True)
            with replacing(file) as draft:
                pq.write_table(_make_table(paths, about), draft, compression="zstd")
        files.append(file)
    return files


def unpack_jobs(out: Path, folder: JobFolder) -> int:
    """Unpack the jobs of all files of ``out`` that a run folder does not have.

    Returns
    -------
    Number of unpacked jobs.

    Raises
    ------
    RhosightError
        If :func:`pack_jobs` did not write a file.
    """
    count = 0
    for file in sorted(out.glob("repeat-*.parquet")):
        about = _read_about(file)
        new = [name for name in about if not (folder.folder / name).exists()]
        if not new:
            continue
        rows = dict(tuple(pd.read_parquet(file).groupby("job", sort=False, observed=True)))
        for name in new:
            _write_job(folder.folder / name, about[name], rows.get(name, pd.DataFrame()))
        count += len(new)
    return count


def _make_table(paths: Sequence[Path], about: Mapping[str, Any]) -> pa.Table:
    frames = []
    for path in paths:
        for kind in _PARTS:
            frame = pd.read_parquet(path / f"{kind}.parquet")
            frames.append(frame.assign(job=path.name, kind=kind))
    frame = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    for name in frame:
        if (
            frame[name].dtype.kind == "f" and name != "true"
        ):  # labels keep the precision of the dataset
            frame[name] = frame[name].astype("float32")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return table.replace_schema_metadata(
        (table.schema.metadata or {}) | {_ABOUT: json.dumps(about).encode()}
    )


def _write_job(path: Path, about: Mapping[str, Any], rows: pd.DataFrame) -> None:
    """Write the folder of a job in one step."""
    draft = path.with_name(f".{path.name}.{uuid4().hex}.part")  # other processes may unpack it too
    draft.mkdir()
    for kind, frame in _split_rows(rows):
        frame.to_parquet(draft / f"{kind}.parquet")
    for name, content in (("job.json", about["job"]), (RESULT, about["result"])):
        (draft / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    try:
        draft.rename(path)
    except OSError:  # another process was faster
        shutil.rmtree(draft, ignore_errors=True)


def _split_rows(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for kind in _PARTS:
        mine = rows[rows["kind"] == kind] if len(rows) else rows
        mine = mine.dropna(axis="columns", how="all").drop(columns=["job", "kind"], errors="ignore")
        single = {name: "float64" for name in mine if mine[name].dtype == "float32"}
        if "epoch" in mine:
            single["epoch"] = "int64"
        yield kind, mine.astype(single).reset_index(drop=True)


def _read_about(file: Path) -> dict[str, Any]:
    try:
        return json.loads(pq.read_schema(file).metadata[_ABOUT])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RhosightError(
            f"{file}: cannot be read as results of `rhosight reproduce`; remove it, and its jobs "
            "run again"
        ) from error


def _read_result(path: Path) -> dict[str, Any]:
    """Return the run time and versions of a job, without the name of the machine."""
    result = _read_json(path / RESULT)
    result["hardware"].pop("host", None)
    return result


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
