"""Hold a reproduced table or figure of the paper, and save it in several formats."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import RhosightError
from ..evaluation.html import NBSP, describe_target
from ..storage import replacing
from .scores import BOTH, Whose, format_cell, name_row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE_FORMATS: tuple[str, ...] = ("csv", "tex")
FIGURE_FORMATS: tuple[str, ...] = ("png", "svg", "pdf")

_DPI = 200  # resolution of PNG files
_DATELESS = {"svg": {"Date": None}, "pdf": {"CreationDate": None, "ModDate": None}, "png": None}


@dataclass(frozen=True, eq=False)
class Exhibit:
    """Reproduced table or figure of the paper.

    Attributes
    ----------
    name
        Name such as ``"table1"`` or ``"figure2"``.
    title
        Content in one line.
    table
        Printed and saved table, or the data of a figure. The paper's values are in columns of
        their own.
    figure
        Picture, if there is one.
    note
        Differences from the paper's exhibit, and the preset.
    """

    name: str
    title: str
    table: pd.DataFrame
    figure: Figure | None = None
    note: str = ""

    @property
    def heading(self) -> str:
        """Name as the paper writes it, such as "Figure 2"."""
        kind = self.name.rstrip("0123456789")
        return f"{kind.capitalize()} {self.name.removeprefix(kind)}"

    @property
    def has_scores(self) -> bool:
        """True if the table has our and the paper's scores of each set."""
        return {"target", "part", "r2", "rmse", "paper_r2"} <= set(self.table)

    def score_tables(self) -> dict[str, pd.DataFrame]:
        """Return the scores as printable tables: title → cells as text.

        Rows are models. Columns are ``model`` and, for the validation and the test set, ours (R² ±
        standard deviation / RMSE) and the paper's.
        """
        table = self.table
        tables: dict[str, pd.DataFrame] = {}
        keys = [key for key in ("trial", "model", "extent", "stage") if key in table]
        parts = [part for part in ("validation", "test") if part in set(table["part"])]
        for target, cells in table.groupby("target", sort=False):
            rows = []
            for values, group in cells.groupby(keys, sort=False):
                names = [str(value) for value in values]
                trials = [name for name in names[:-3] if name not in ("", "mean")]
                by_part = {row["part"]: row for _, row in group.iterrows()}
                texts = [_write_cell(by_part.get(part), whose) for part in parts for whose in BOTH]
                rows.append([", ".join([*trials, name_row(*names[-3:])]), *texts])
            unit = next(iter(cells["rmse_unit"].dropna()), "")
            title = f"{describe_target(str(target))}, R²{f' / RMSE ({unit})' if unit else ''}"
            columns = ["model", *(name for part in parts for name in (part, "paper"))]
            tables[title] = pd.DataFrame(rows, columns=columns)
        return tables

    def save(
        self,
        folder: str | os.PathLike,
        formats: Sequence[str] = (*TABLE_FORMATS, *FIGURE_FORMATS),
    ) -> list[Path]:
        """Write ``name.csv``, ``name.tex`` and, if there is a figure, PNG, SVG and PDF.

        The same exhibit always gives the same bytes. Returns the paths.

        Raises
        ------
        RhosightError
            For an unknown format, or a folder that is not writable.
        """
        unknown = set(formats) - {*TABLE_FORMATS, *FIGURE_FORMATS}
        if unknown:
            known = ", ".join((*TABLE_FORMATS, *FIGURE_FORMATS))
            raise RhosightError(f"{self.name}: no format {min(unknown)!r}; choose from {known}")
        folder = Path(folder)
        paths = []
        if self.figure is not None and set(formats) & set(FIGURE_FORMATS):
            # once for all files: layout takes longer than drawing
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine(None)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for kind in formats:
                if kind in FIGURE_FORMATS and self.figure is None:
                    continue
                path = folder / f"{self.name}.{kind}"
                with replacing(path) as draft:
                    self._write_file(draft, kind)
                paths.append(path)
        except OSError as error:
            raise RhosightError(f"{folder}: cannot write to the folder; give another") from error
        return paths

    def _write_file(self, path: Path, kind: str) -> None:
        if kind == "csv":
            # further digits differ between machines
            self.table.to_csv(path, index=False, float_format="%.6g")
        elif kind == "tex":
            path.write_text(self._render_latex(), encoding="utf-8")
        else:
            import matplotlib

            assert self.figure is not None
            with matplotlib.rc_context({"svg.hashsalt": self.name, "svg.fonttype": "none"}):
                self.figure.savefig(path, format=kind, dpi=_DPI, metadata=_DATELESS[kind])
            if kind == "svg":  # matplotlib names clip paths by their memory address
                text = path.read_text(encoding="utf-8")
                for i, name in enumerate(re.findall(r'<clipPath id="(\w+)"', text)):
                    text = text.replace(name, f"clip{i}")
                path.write_text(text, encoding="utf-8")

    def _render_latex(self) -> str:
        """Return tables for a document with the packages booktabs and longtable."""
        title = f"{self.heading} of arXiv:2401.09301, reproduced"
        if not self.has_scores:
            return self._render_longtable(self.table, f"{title}.", self.name)
        tables = self.score_tables().items()
        return "\n".join(
            self._render_longtable(
                table, f"{title}: {what}. {self.note}".rstrip(), f"{self.name}-{number}"
            )
            for number, (what, table) in enumerate(tables, start=1)
        )

    def _render_longtable(self, table: pd.DataFrame, caption: str, label: str) -> str:
        return table.to_latex(
            index=False,
            escape=True,
            float_format="%.4g",
            na_rep="--",
            longtable=True,
            caption=caption.replace("R²", "R$^2$").replace("%", r"\%").replace("#", r"\#"),
            label=f"tab:{label}",
        )


def _write_cell(row: pd.Series | None, whose: Whose) -> str:
    """Return a cell of a narrow table."""
    return "" if row is None else " /".join(format_cell(row, whose)).replace(NBSP, "")
