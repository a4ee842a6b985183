"""Print predictions as a table that fits the terminal, and known crystals."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .common import console, print_line

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure

    from ..models.base import SavedModel

GAP = "  "
SAME_VOLUME = 0.01
"""Change of the volume of a known crystal that is not worth a word."""

DOUBTS = {
    "outside": "outside the training domain",
    "unused_density": "predicted from the structure alone, without the density",
}
"""Columns of reasons, and what a reason means."""

FORMATION_ENERGY = "formation_energy_per_atom"


def print_table(predictions: pd.DataFrame, model: SavedModel) -> None:
    """Print all predictions, and why a material is outside the training domain.

    Rows are never wrapped or cut. Where names and values do not fit into one line, the name stands
    above its values; targets that do not fit beside each other follow in further tables.
    """
    for part in _split_targets(predictions, model, console.width):
        _print_part(part, list(map(str, predictions.index)), console.width)
    for column, meaning in DOUBTS.items():
        for name, reason in predictions.get(column, {}).items():
            if reason:
                console.print(
                    f"{name}: {meaning}: {reason}",
                    style="yellow",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )


def print_known(model: SavedModel, structures: Mapping[str, Structure]) -> None:
    """Print the calculated values of crystals that are in a bundled dataset."""
    from ..dataset.known import find_known_material

    trained = set(model.about.get("training_ids", ()))
    for name, structure in structures.items():
        formula = structure.composition.reduced_formula
        known = find_known_material(structure, model.targets)
        if known:
            values = [
                f"{target} {value:.4g} {model.units[target]}".rstrip()
                for target, value in known.values.items()
            ]
            where = "in" if known.material_id in trained else "not in"
            line = f"{name}: {formula} is {known.material_id}, {where} the training set"
            if abs(known.volume_change) > SAME_VOLUME:
                more = "more" if known.volume_change > 0 else "less"
                line += f", with {100 * abs(known.volume_change):.1f} % {more} volume"
            print_line(line)
            if values:
                print_line(_wrap(f"calculated: {', '.join(values)}"))
        if len(structure.composition) == 1 and FORMATION_ENERGY in model.targets:
            text = "the formation energy of an element's reference structure is 0 by definition"
            print_line(f"{name}: {formula} is an element\n{_wrap(text)}")


def format_value(value: float, half: float | None = None) -> str:
    """Return a value with two digits of its interval, or four digits without one."""
    if half is None:
        return f"{value:.4g}"
    if not math.isfinite(half) or half <= 0:
        return f"{value:.4g} ± {half:.2g}"
    digits = max(0, 1 - math.floor(math.log10(half)))
    text = f"{value:.{digits}f}"
    return f"{text.lstrip('-') if not float(text) else text} ± {half:.{digits}f}"


def _wrap(text: str) -> str:
    """Return an indented text in lines that fit the terminal."""
    return textwrap.fill(
        text,
        console.width,
        initial_indent=GAP,
        subsequent_indent=GAP,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _split_targets(
    predictions: pd.DataFrame, model: SavedModel, width: int
) -> list[list[list[str]]]:
    """Return the columns of each table: three lines of heading, and the cells."""
    first = [["", "", "formula", *predictions["formula"]]]
    last = []
    if "outside" in predictions:
        last.append(["", "", "outside", *("yes" if r else "no" for r in predictions["outside"])])
    if "density_source" in predictions:
        last.append(["", "", "density", *predictions["density_source"]])
    if any(predictions["notes"]):
        counts = [len(note.split("; ")) if note else 0 for note in predictions["notes"]]
        last.append(["", "", "notes", *(str(count) if count else "" for count in counts)])
    room = width - _measure(first + last)
    parts: list[list[list[str]]] = []
    for target in model.targets:
        column = [*split_name(target), model.units[target]]
        ends = predictions.get(f"{target}_high")
        halves = [None] * len(predictions) if ends is None else list(ends - predictions[target])
        column += [format_value(v, h) for v, h in zip(predictions[target], halves, strict=True)]
        if not parts or _measure([*parts[-1], column]) + len(GAP) > room:
            parts.append([])
        parts[-1].append(column)
    return [first + part + last for part in parts]


def _print_part(columns: list[list[str]], names: Sequence[str], width: int) -> None:
    """Print one table, with the names in its last column or above the values."""
    widths = [max(map(len, column)) for column in columns]
    lines = [
        GAP.join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    ]
    fits = _measure(columns) + len(GAP) + max(map(len, [*names, "material"])) <= width
    for line in lines[:2]:
        if line.strip():
            print_line(line.rstrip())
    print_line(f"{lines[2]}{GAP}material" if fits else lines[2].rstrip())
    for name, line in zip(names, lines[3:], strict=True):
        if fits:
            print_line(f"{line}{GAP}{name}")
        else:
            print_line(f"{name}\n{line.rstrip()}")


def _measure(columns: Sequence[Sequence[str]]) -> int:
    """Return the width of columns side by side."""
    return sum(max(map(len, column)) for column in columns) + len(GAP) * max(len(columns) - 1, 0)


def split_name(name: str) -> tuple[str, str]:
    """Return a long name in two lines, divided at one of its underscores."""
    cuts = [match.end() for match in re.finditer("_", name)]
    if len(name) <= 12 or not cuts:
        return "", name
    cut = min(cuts, key=lambda at: abs(at - len(name) / 2))
    return name[:cut], name[cut:]
