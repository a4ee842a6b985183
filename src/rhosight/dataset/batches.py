"""What a worker does with a batch of materials."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..density import ChargeDensity
from ..errors import RhosightError
from ..image import ImageSettings, density_image, turn_margin
from ..runs import replacing
from ..sources.source import Entry, Source
from ..text import describe
from .core import parquet_options
from .table import build_table

PART_LEVEL = 1
"""zstd's, of what is kept only until the end of the build."""

Problems = dict[str, list[tuple[str, str]]]
"""Material id → (step, problem) of each."""


@dataclass(frozen=True)
class Outcome:
    """What became of one batch."""

    ids: list[str]
    problems: Problems
    seconds: dict[str, float]


@dataclass(frozen=True)
class Task:
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

    def run(self, ids: list[str]) -> Outcome:
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
        return Outcome(ids, problems, clock.seconds)

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
