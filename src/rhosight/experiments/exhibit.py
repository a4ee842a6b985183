"""Exhibit: a table or figure of the paper, made anew, and the files that it is saved as."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import RhosightError
from ..runs import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE_FORMATS: tuple[str, ...] = ("csv", "tex")
FIGURE_FORMATS: tuple[str, ...] = ("png", "svg", "pdf")

_DPI = 200  # of PNG
_DATELESS = {"svg": {"Date": None}, "pdf": {"CreationDate": None, "ModDate": None}, "png": None}


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A table or figure of the paper, made anew.

    Attributes
    ----------
    name
        Which: ``"table1"``, ``"figure2"``.
    title
        What it shows, in one line.
    table
        What is printed and saved; behind a figure, its data. The paper's values stand in columns
        of their own.
    figure
        The picture, if there is one.
    note
        How it differs from the paper's, and with which weights it was made.
    """

    name: str
    title: str
    table: pd.DataFrame
    figure: Figure | None = None
    note: str = ""

    @property
    def heading(self) -> str:
        """The name as the paper writes it, such as "Figure 2"."""
        word, number = re.fullmatch(r"([a-z]+)(\d+)", self.name).groups()
        return f"{word.capitalize()} {number}"

    def save(
        self,
        folder: str | os.PathLike,
        formats: Sequence[str] = (*TABLE_FORMATS, *FIGURE_FORMATS),
    ) -> list[Path]:
        """Write ``name.csv``, ``name.tex`` and, if there is a figure, PNG, SVG and PDF.

        The same exhibit gives the same bytes. Returns the paths.

        Raises
        ------
        RhosightError
            For an unknown format, or a folder that cannot be written to.
        """
        unknown = set(formats) - {*TABLE_FORMATS, *FIGURE_FORMATS}
        if unknown:
            known = ", ".join((*TABLE_FORMATS, *FIGURE_FORMATS))
            raise RhosightError(f"{self.name}: no format {min(unknown)!r}; choose from {known}")
        folder = Path(folder)
        paths = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for kind in formats:
                if kind in FIGURE_FORMATS and self.figure is None:
                    continue
                path = folder / f"{self.name}.{kind}"
                with replacing(path) as draft:
                    self._write(draft, kind)
                paths.append(path)
        except OSError as error:
            raise RhosightError(f"{folder}: cannot be written to; give another folder") from error
        return paths

    def _write(self, path: Path, kind: str) -> None:
        if kind == "csv":
            self.table.to_csv(path, index=False)
        elif kind == "tex":
            path.write_text(self._latex(), encoding="utf-8")
        else:
            import matplotlib

            with matplotlib.rc_context({"svg.hashsalt": self.name, "svg.fonttype": "none"}):
                self.figure.savefig(path, format=kind, dpi=_DPI, metadata=_DATELESS[kind])
            if kind == "svg":  # matplotlib names clip paths by where they lie in memory
                text = path.read_text(encoding="utf-8")
                for i, name in enumerate(re.findall(r'<clipPath id="(\w+)"', text)):
                    text = text.replace(name, f"clip{i}")
                path.write_text(text, encoding="utf-8")

    def _latex(self) -> str:
        """For a document with the package booktabs."""
        return self.table.to_latex(
            index=False,
            escape=True,
            float_format="%.4g",
            na_rep="--",
            caption=f"{self.heading} of arXiv:2401.09301, made anew.",
            label=f"tab:{self.name}",
        )
