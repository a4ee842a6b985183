"""Load a dataset by name or path; pack a folder of materials into a Parquet file."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..density.charge_density import ChargeDensity
from ..errors import RhosightError
from ..inputs.progress import Progress
from ..inputs.text.description import describe
from ..inputs.text.extents import EXTENTS
from ..storage import bundled_file
from .dataset import Dataset
from .sources.folder import LABELS, read_folder

BUNDLED: tuple[str, ...] = ("mp-fcc", "mp-elastic", "mp-mixed")
"""Names of the datasets in the package."""

PACKED_LEVEL = 19
"""zstd's level for packing: it takes seconds once and saves a third of the size."""


def load_dataset(name_or_path: str | os.PathLike) -> Dataset:
    """Load a bundled dataset by name, or your own from a Parquet file or a folder.

    Parameters
    ----------
    name_or_path
        ``"mp-fcc"``, ``"mp-elastic"`` or ``"mp-mixed"`` (always the bundled one; write ``./mp-fcc``
        for a folder of that name), a Parquet file with the columns of
        :mod:`rhosight.dataset.schema`, a folder of such files, or a folder with ``materials.csv``,
        ``structures/*.cif`` and ``densities.h5``. Bad materials of the last are left out, and a
        warning names them. It has no texts until it is packed.

    Raises
    ------
    RhosightError
        If there is no such dataset, or it is not valid.
    """
    if name_or_path in BUNDLED:
        with bundled_file(f"{name_or_path}.parquet") as path:
            return Dataset.from_parquet(path)
    path = Path(name_or_path)
    if not path.exists():
        raise RhosightError(
            f"{path}: no such file or folder, and not a bundled dataset ({', '.join(BUNDLED)}); "
            "check the path"
        )
    if not path.is_dir() or any(path.glob("*.parquet")):
        return Dataset.from_parquet(path)
    content = read_folder(path)
    _warn(path, content.problems)
    about = _write_about(content.about, path, content.problems)
    return Dataset.from_densities(content.densities, content.labels, about=about)


@dataclass(frozen=True)
class PackReport:
    """Report what :func:`pack` did.

    Attributes
    ----------
    path
        The written file.
    materials
        Number of materials in it.
    problems
        Columns material_id, step ("material" or "text <extent>"), problem. A material with a
        "material" problem is not in the file. One whose text failed is, without that text.
    masked
        Labels set to missing, see :func:`mask_labels`.
    """

    path: Path
    materials: int
    problems: pd.DataFrame
    masked: pd.DataFrame


def pack(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    describe_texts: bool = True,
    about: Mapping[str, Any] | str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> PackReport:
    """Turn a folder of materials into one Parquet dataset, texts included.

    Parameters
    ----------
    folder
        Holds ``materials.csv``, ``structures/<material_id>.cif``, ``densities.h5`` and optionally
        ``provenance.json``.
    out
        The file to write, atomically. The same folder gives the same bytes. Texts of an
        interrupted run are kept beside it in a hidden file and reused.
    describe_texts
        Describe every structure in the three extents (seconds each).
    about
        Replaces the folder's ``provenance.json``: its content, or the path of such a file.
    progress
        Called after each material.
    """
    folder, out = Path(folder), Path(out)
    if not out.parent.is_dir():
        raise RhosightError(f"{out}: the folder {out.parent} does not exist; create it first")
    content = read_folder(folder, about)
    _warn(folder, content.problems)
    about = _write_about(content.about, folder, content.problems)
    # labels that do not fit should fail before the texts, which take long
    Dataset.from_densities(content.densities, content.labels, about=about)
    problems = [(i, "material", problem) for i, problem in content.problems.items()]
    texts: dict[str, dict[str, str]] = {}
    notes = out.with_name(f".{out.name}.texts.jsonl")
    described = _read_notes(notes) if describe_texts else {}
    for done, density in enumerate(content.densities, start=1):
        if describe_texts:
            key = hashlib.sha256(density.structure.to_json().encode()).hexdigest()
            if key not in described:
                described[key] = _describe(density)
                with notes.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, *described[key]]) + "\n")
            texts[density.name], failed = described[key]
            problems += [(density.name, f"text {extent}", why) for extent, why in failed.items()]
        if progress:
            progress("materials", done, len(content.densities))
    dataset = Dataset.from_densities(content.densities, content.labels, texts, about)
    dataset.to_parquet(out, compression_level=PACKED_LEVEL)
    notes.unlink(missing_ok=True)
    table = pd.DataFrame(problems, columns=["material_id", "step", "problem"])
    return PackReport(out, len(dataset), table, dataset.masked)


def _read_notes(path: Path) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """Read the texts of an interrupted run; a truncated line is ignored."""
    described = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            key, texts, failed = json.loads(line)
        except ValueError:
            continue
        described[key] = texts, failed
    return described


def _describe(density: ChargeDensity) -> tuple[dict[str, str], dict[str, str]]:
    """Return extent → text, and extent → reason for a missing text."""
    texts: dict[str, str] = {}
    failed: dict[str, str] = {}
    for extent in EXTENTS:
        try:
            texts[extent] = describe(density.structure, extent, name=density.name)
        except RhosightError as error:
            failed[extent] = str(error)
    return texts, failed


def _write_about(
    given: Mapping[str, Any], folder: Path, problems: Mapping[str, str]
) -> dict[str, Any]:
    """Return the file's metadata, including the materials left out."""
    about = {key: value for key, value in given.items() if key != "provenance"}
    about.setdefault("name", folder.resolve().name)
    return {**about, "left_out": dict(problems)} if problems else about


def _warn(folder: Path, problems: Mapping[str, str]) -> None:
    if problems:
        names = ", ".join(problems)
        warnings.warn(
            f"{folder}: {len(problems)} material(s) left out ({names}); the first problem: "
            f"{next(iter(problems.values()))}; correct {LABELS} or the files it names",
            stacklevel=3,
        )
