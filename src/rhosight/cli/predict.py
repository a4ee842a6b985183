"""``rhosight predict``: properties from density files, structures or a dataset."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RhosightError
from ..storage import check_writable
from .batches import report, work_through
from .common import check_files, is_dataset, print_remark, progress_bar, read_model
from .predictions import print_known, print_table
from .reading import (
    DifferenceOption,
    KindOption,
    NotesMode,
    NotesOption,
    Reading,
    UnitOption,
    check_difference,
    expand_folders,
    has_structure_name,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..models.base import SavedModel


class Format(StrEnum):
    """Formats of the predictions."""

    table = "table"
    csv = "csv"
    json = "json"


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="Format of the output. Default: a table on the terminal; in a file, the format of its "
        "suffix.",
    ),
]


MaterialsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILES...",
        help="Density files (CHGCAR, CHG, cube, XSF; may be compressed), folders that are "
        "searched for them, or one dataset. For a CIF or POSCAR the density is predicted first, "
        "if the model needs one; best gains nothing over no-dft by that.",
        show_default=False,
    ),
]

RelaxOption = Annotated[
    bool,
    typer.Option(
        "--relax",
        help="Relax structures with CHGNet (rhosight\\[chgnet]) before predicting: no-dft was "
        "trained on relaxed crystals.",
    ),
]


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="best or no-dft (they come with the package and know all lattices), the folder of "
            "a saved model, or a hub id. no-dft and structure+potential need no density: "
            "they read CIF and POSCAR files. structure+potential is more accurate for formation "
            "energies, and needs rhosight\\[chgnet]."
        ),
    ],
    files: MaterialsArgument = None,
    kind: KindOption = None,
    unit: UnitOption = None,
    difference: DifferenceOption = None,
    notes: NotesOption = NotesMode.show,
    relax: RelaxOption = False,
    output: FormatOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write to this file instead of printing: JSON if its suffix is .json, CSV "
            "otherwise."
        ),
    ] = None,
) -> None:
    """Predict properties, with prediction intervals, from density files or a dataset.

    Notes on doubtful files go to standard error, and into the column notes of CSV and JSON. Files
    that cannot be predicted are listed at the end, and the exit code is 1. Ctrl-C writes the
    predictions made so far.
    """
    if not files or Path(model).is_file():
        raise RhosightError(_describe_missing_argument(model))
    if out:
        check_writable(out)
    check_files(files)
    check_difference(difference, files)
    loaded = read_model(model)
    if relax:
        _check_relaxation(loaded, files)
    dense = loaded.uses_density
    files = expand_folders(files, structures=not dense, predicts=dense)
    reading = Reading(kind, unit, difference, notes, "rhosight predict no-dft {file}", dense, relax)
    read = reading.read_materials if dense else reading.read_structures

    def work(materials: Any) -> pd.DataFrame:
        return loaded.predict_intervals(reading.add_densities(materials))

    with progress_bar() as progress:
        outcome = work_through(files, read, work, progress, "predicted")
    if outcome.results:
        predictions = _add_facts(outcome.results, reading)
        _show(predictions, loaded, output or _choose_format(out), out, reading)
    reading.print_notes()
    if code := report(outcome, "predicted"):
        raise typer.Exit(code)


def _check_relaxation(model: SavedModel, files: list[str]) -> None:
    """Check that a model reads structures, which can be relaxed.

    Raises
    ------
    RhosightError
        If it reads densities, or the structures are those of a dataset.
    """
    if model.uses_density or is_dataset(files):
        raise RhosightError(
            "--relax: is for files of structures and models that read no density, such as no-dft; "
            "omit it"
        )


def _add_facts(parts: list[pd.DataFrame], reading: Reading) -> pd.DataFrame:
    """Return all predictions, with the columns ``formula`` and ``notes``.

    Where densities were predicted, further columns say so and give their expected error and its
    bound, shares of the electrons.
    """
    import pandas as pd

    predictions = pd.concat(parts)
    names = [str(name) for name in predictions.index]
    predictions.insert(0, "formula", [reading.formulas.get(name, "") for name in names])
    if reading.predicted:
        errors = [reading.predicted.get(name, (None, None)) for name in names]
        kinds = ["predicted" if name in reading.predicted else "calculated" for name in names]
        predictions["density_source"] = kinds
        predictions["density_error"] = [error for error, _ in errors]
        predictions["density_error_bound"] = [bound for _, bound in errors]
    predictions["notes"] = ["; ".join(reading.notes.get(name, [])) for name in names]
    return predictions


def _choose_format(out: Path | None) -> Format:
    """Return the default format, from the suffix of the file if there is one."""
    if out is None:
        return Format.table
    return Format.json if out.suffix.lower() == ".json" else Format.csv


def _describe_missing_argument(first: str) -> str:
    """Return the message for a command without files, or with a file as its model."""
    from ..models.folder import BUNDLED_MODELS

    if first in BUNDLED_MODELS or Path(first).is_dir():
        return f"no files are given; give density files or a dataset after the model {first}"
    model = "no-dft" if has_structure_name(first) else "best"
    return (
        f"{first}: the first argument must be a model: `rhosight predict {model} {first}`; best "
        "reads densities, no-dft also structures (CIF, POSCAR)"
    )


def _show(
    predictions: pd.DataFrame,
    model: SavedModel,
    output: Format,
    out: Path | None,
    reading: Reading,
) -> None:
    if model.caveat:
        print_remark("note", "model", model.caveat)
    if output is Format.table and out is None:
        print_table(predictions, model)
        print_known(model, reading.crystals)
        return
    targets, units = model.targets, model.units
    if output is Format.json:
        rows = [
            {"material": str(name), **{k: _replace_infinite(v) for k, v in row.items()}}
            for name, row in zip(predictions.index, predictions.to_dict("records"), strict=True)
        ]
        content = {"units": units, "predictions": rows}
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    else:
        ends = ("", "_low", "_high", "_std")
        names = {f"{t}{end}": f"{t}{end} ({units[t]})" for t in targets for end in ends}
        text = predictions.rename(columns=names).to_csv(lineterminator="\n").rstrip()
    if out:
        out.write_text(text + "\n")
    else:
        print(text)


def _replace_infinite(value: Any) -> Any:
    """Return None for NaN and infinity, which JSON lacks."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
