"""A record of all candidates that were tried, one file for each batch.

A batch is written whole or not at all, so a search that is killed loses one batch at most.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import RhosightError
from ..storage import read_json, replacing

VERIFIED = "verified.json"
"""File of the candidates that were computed by DFT."""


class Ledger:
    """Batches of rows in a folder, or in memory without one.

    Parameters
    ----------
    folder
        Where the batches are; None to keep them in memory.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._batches: dict[int, list[dict[str, Any]]] = {}
        if folder:
            folder.mkdir(parents=True, exist_ok=True)

    def read(self, number: int, names: list[str]) -> list[dict[str, Any]] | None:
        """Return the rows of a batch, or None if it has not been written.

        Parameters
        ----------
        number
            Of the batch.
        names
            Of the candidates that it should hold.

        Raises
        ------
        RhosightError
            If the file is damaged or holds other candidates.
        """
        if not self._folder:
            return self._batches.get(number)
        path = self._path(number)
        if not path.exists():
            return None
        try:
            rows = read_json(path)["candidates"]
            same = [row["name"] for row in rows] == names
        except (ValueError, KeyError, TypeError) as error:
            raise RhosightError(
                f"{path}: not a batch of a search ({error}); remove this file to compute it again"
            ) from error
        if not same:
            raise RhosightError(
                f"{path}: holds other candidates, of another version of rhosight or its data; give "
                "another folder"
            )
        return rows

    def write(self, number: int, rows: list[dict[str, Any]]) -> None:
        """Write the rows of a batch; NaN and infinity become None."""
        rows = [{name: _clean(value) for name, value in row.items()} for row in rows]
        if not self._folder:
            self._batches[number] = rows
            return
        with replacing(self._path(number)) as draft:
            text = json.dumps({"candidates": rows}, ensure_ascii=False, allow_nan=False)
            draft.write_text(text, encoding="utf-8")

    def mark(self, rows: list[dict[str, Any]]) -> None:
        """Note which candidates were verified, in ``verified.json`` beside the batches."""
        assert self._folder
        rows = [{name: _clean(value) for name, value in row.items()} for row in rows]
        with replacing(self._folder / VERIFIED) as draft:
            text = json.dumps({"candidates": rows}, ensure_ascii=False, allow_nan=False)
            draft.write_text(text, encoding="utf-8")

    def read_verified(self) -> list[dict[str, Any]] | None:
        """Return the rows that :meth:`mark` wrote, or None.

        Raises
        ------
        RhosightError
            If the file is damaged.
        """
        path = self._folder / VERIFIED if self._folder else None
        if path is None or not path.exists():
            return None
        try:
            rows = read_json(path)["candidates"]
            [(row["name"], row["formula"], row["problem"]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise RhosightError(
                f"{path}: not a list of verified candidates ({error}); remove this file to write "
                "it again"
            ) from error
        return rows

    def _path(self, number: int) -> Path:
        assert self._folder
        return self._folder / f"batch-{number:05d}.json"


def _clean(value: Any) -> Any:
    """Return None for a number that JSON lacks."""
    is_number = isinstance(value, float)
    return None if is_number and (value != value or abs(value) == float("inf")) else value
