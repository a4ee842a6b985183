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
from ..evaluation.html import NBSP, describe_target, format_number, format_significant
from ..storage import replacing
from .paper import as_printed
from .scores import row_name

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
        How it differs from the paper's, and with which preset it was made.
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

    @property
    def has_scores(self) -> bool:
        """Whether its table has ours and the paper's scores by part."""
        return {"target", "part", "r2", "rmse", "paper_r2"} <= set(self.table)

    def score_tables(self) -> dict[str, pd.DataFrame]:
        """Its scores as one would print them: what a table shows → its cells as text.

        Rows are models; columns ``model`` and, of the validation and the test part, ours (R² ±
        standard deviation / RMSE) and the paper's.
        """
        table, found = self.table, {}
        keys = [key for key in ("trial", "model", "extent", "stage") if key in table]
        parts = [part for part in ("validation", "test") if part in set(table["part"])]
        for target, cells in table.groupby("target", sort=False):
            rows = []
            for values, shown in cells.groupby(keys, sort=False):
                # the mean of all runs goes without saying
                names = [v for v in values[:-3] if v not in ("", "mean")] + [row_name(*values[-3:])]
                by_part = shown.set_index("part")
                there = [by_part.loc[p] if p in by_part.index else None for p in parts]
                texts = [text for row in there for text in (_ours(row), _printed(row))]
                rows.append([", ".join(names), *texts])
            unit = next(iter(cells["rmse_unit"].dropna()), "")
            title = f"{describe_target(target)}, R²{f' / RMSE ({unit})' if unit else ''}"
            columns = ["model", *(name for part in parts for name in (part, "paper"))]
            found[title] = pd.DataFrame(rows, columns=columns)
        return found

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
        if self.figure is not None and set(formats) & set(FIGURE_FORMATS):
            # once for all files: laying it out takes longer than drawing it
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine(None)
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
            # more digits than any machine agrees on with another would be no result
            self.table.to_csv(path, index=False, float_format="%.6g")
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
        """For a document with the packages booktabs and longtable."""
        title = f"{self.heading} of arXiv:2401.09301, made anew"
        if not self.has_scores:
            return self._longtable(self.table, f"{title}.", self.name)
        tables = self.score_tables().items()
        return "\n".join(
            self._longtable(
                table, f"{title}: {what}. {self.note}".rstrip(), f"{self.name}-{number}"
            )
            for number, (what, table) in enumerate(tables, start=1)
        )

    def _longtable(self, table: pd.DataFrame, caption: str, label: str) -> str:
        return table.to_latex(
            index=False,
            escape=True,
            float_format="%.4g",
            na_rep="--",
            longtable=True,
            caption=caption.replace("R²", "R$^2$").replace("%", r"\%").replace("#", r"\#"),
            label=f"tab:{label}",
        )


def _ours(row: pd.Series | None) -> str:
    if row is None or pd.isna(row["r2"]):
        return ""
    r2 = format_number(row["r2"], 2, row["r2_std"]).replace(NBSP, "")
    return r2 if pd.isna(row["rmse"]) else f"{r2} /{format_significant(row['rmse'])}"


def _printed(row: pd.Series | None) -> str:
    if row is None or pd.isna(row["paper_r2"]):
        return ""
    r2 = format_number(row["paper_r2"], 2)
    return r2 if pd.isna(row["paper_rmse"]) else f"{r2} /{as_printed(row['paper_rmse'])}"
