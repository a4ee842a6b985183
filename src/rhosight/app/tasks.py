"""Tasks of a worker process: predict, cut slices, sample the cell, explain.

The task that searches for crystals is in :mod:`.proposals`.

The arguments and the result of each task are JSON. A task reads and writes files in the current
folder, which belongs to one material of one visitor.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from ..dataset.dataset import Dataset
from ..dataset.packing import load_dataset
from ..dataset.schema import ALL_TARGETS
from ..density.charge_density import ChargeDensity
from ..density.crystals import SYMPREC, as_structure
from ..density.drawing import draw_slices
from ..density.predicted import is_predicted
from ..density.structures import get_notes
from ..errors import RhosightError
from ..explain.explain import explain as explain_predictions
from ..inputs.progress import Progress
from ..models.combined import UNUSED_DENSITY
from ..models.loading import load_model
from ..models.provenance import describe_other_codes, find_codes
from . import reading, views
from .figures import draw_block, draw_slice
from .limits import Limits
from .proposals import propose
from .reading import Crystal
from .store import UPLOADS

Task = Callable[[dict[str, Any], Limits, Progress], dict[str, Any]]

LABELS = "mp-elastic"
"""Dataset with the labels of all training materials."""

NEAREST = 5
"""Number of training materials that are listed beside a prediction."""

SAME_DISTANCE = 0.005
"""Distance below which an upload counts as a training material, because files round numbers. The
page shows it as 0.00."""


def warm_up() -> None:
    """Load the models and data, and run the code of the tasks once."""
    # explanations use PyTorch, whose libraries would count as memory of the first one
    import_module("rhosight.explain.process_explainer")
    material = reading.load_materials()[0]
    for name in ("best", "no-dft"):
        _predict(name, material.density if name == "best" else material.structure)
    draw_slice(views.cut_slices(material.density, None, 0.0, 8.0), "total")
    draw_block(views.make_block(material.density, "total"))


def analyse(arguments: dict[str, Any], limits: Limits, progress: Progress) -> dict[str, Any]:
    """Read an upload, or take a bundled material, and predict.

    The ``arguments`` are ``name`` of the file in the folder, its ``kind`` of density and ``unit``,
    or the id of a bundled ``material``. The upload is deleted once it is read.
    """
    material_id = arguments.get("material")
    progress("reading", 0, 3)
    if material_id:
        crystal: Crystal = reading.load_materials()[material_id].density
    else:
        upload = Path(UPLOADS) / arguments["name"]
        try:
            crystal = reading.read_upload(
                upload, arguments["kind"], limits, arguments.get("unit", "")
            )
        except RhosightError as error:
            raise RhosightError(str(error).replace(f"{UPLOADS}/", "")) from error
        finally:
            upload.unlink(missing_ok=True)
    crystal, notes = reading.add_difference(crystal)
    notes = [*get_notes(crystal), *notes]
    progress("predicting", 1, 3)
    predicted, more = _predict_crystal(crystal)
    if isinstance(crystal, Structure):
        progress("predicting the density", 2, 3)
        crystal, notes_on_density = reading.predict_density(crystal)
        more += notes_on_density
    progress("saving the density", 2, 3)
    reading.save_crystal(crystal, material_id, Path())
    return {
        "name": material_id or arguments["name"],
        "material": material_id,
        **_collect_facts(crystal),
        **predicted,
        **_look_up_labels(material_id, predicted),
        "notes": [*notes, *more],
    }


def cut_slices(arguments: dict[str, Any], limits: Limits, progress: Progress) -> dict[str, Any]:
    """Cut the kinds of density along a lattice plane.

    The ``arguments`` are ``hkl`` (three integers or null), ``offset`` (interplanar spacings),
    ``window`` (Å) and ``form``: ``figures``, ``data``, ``csv``, or ``png`` (in base64).
    """
    hkl = tuple(arguments["hkl"]) if arguments["hkl"] else None
    offset, window = arguments["offset"], arguments["window"]
    density = _load_density()
    formula = density.structure.composition.reduced_formula
    name = f"{formula}-{''.join(map(str, hkl or ('densest',)))}"  # of a download
    if arguments["form"] == "png":
        figure = draw_slices(density, window, hkl, offset, views.list_kinds(density))
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=150)
        return {"png": base64.b64encode(content.getvalue()).decode(), "name": name}
    slices = views.cut_slices(density, hkl, offset, window)
    if arguments["form"] == "csv":
        table = slices.table()
        text = table.to_csv(index=False, lineterminator="\n", float_format="%.6g")
        return {"csv": text, "name": name}
    if arguments["form"] == "data":
        return slices.to_dict()
    figures = {kind: draw_slice(slices, kind) for kind in slices.values}
    return {"figures": figures, "hkl": list(slices.plane.hkl), "spacing": slices.plane.spacing}


def make_block(arguments: dict[str, Any], limits: Limits, progress: Progress) -> dict[str, Any]:
    """Return the atoms in the conventional cell, and a density in it.

    The ``arguments`` are ``kind``, which the crystal may lack, and ``form``: ``figure`` or
    ``data``.
    """
    crystal, kind = reading.load_crystal(Path()), arguments["kind"]
    kinds = crystal.grids if isinstance(crystal, ChargeDensity) else ()
    block = views.make_block(crystal, kind if kind in kinds else None)
    if arguments["form"] == "data":
        return block.to_dict()
    figure, level = draw_block(block)
    return {"figure": figure, "kind": block.kind, "level": level}


def explain(arguments: dict[str, Any], limits: Limits, progress: Progress) -> dict[str, Any]:
    """Return the contribution of each modality, see :mod:`rhosight.explain`."""
    crystal = reading.load_crystal(Path())
    progress("explaining: predictions without each modality", 0, 1)
    has_density = isinstance(crystal, ChargeDensity) and not is_predicted(crystal)
    model = _load_model("best" if has_density and _has_total(crystal) else "no-dft")
    material = crystal if model.uses_density else as_structure(crystal)
    return explain_predictions(model, material, details=False).to_dict()


TASKS: dict[str, Task] = {
    "analyse": analyse,
    "slices": cut_slices,
    "block": make_block,
    "explain": explain,
    "design": propose,
}


def _load_density() -> ChargeDensity:
    crystal = reading.load_crystal(Path())
    if not isinstance(crystal, ChargeDensity):
        raise RhosightError(
            "a CIF contains no density, and none could be predicted; send a CHGCAR, cube or XSF"
        )
    return crystal


@cache
def _load_model(name: str) -> Any:
    return load_model(name)


def _predict(name: str, crystal: Crystal) -> dict[str, Any]:
    model = _load_model(name)
    materials: Any = (
        [crystal] if isinstance(crystal, ChargeDensity) else {"structure": as_structure(crystal)}
    )
    row = model.predict_intervals(materials, nearest=NEAREST + 1).iloc[0]
    labels = _load_labels().targets.loc[model.about["training_ids"]]
    properties = {
        target: {
            "value": float(row[target]),
            "low": float(row[f"{target}_low"]),
            "high": float(row[f"{target}_high"]),
            "unit": model.units[target],
            "least": float(labels[target].min()),
            "most": float(labels[target].max()),
        }
        for target in model.targets
    }
    return {
        "model": name,
        "level": model.recipe.level,
        "properties": properties,
        "outside": row["outside"],
        **({UNUSED_DENSITY: row[UNUSED_DENSITY]} if UNUSED_DENSITY in row else {}),
        "nearest": [_describe_neighbour(*pair) for pair in row["nearest"]],
    }


def _predict_crystal(crystal: Crystal) -> tuple[dict[str, Any], list[str]]:
    """Return the prediction of the model that suits the crystal's data, and notes."""
    structure = as_structure(crystal)
    if not isinstance(crystal, ChargeDensity):
        return _predict("no-dft", structure), [
            "The model no-dft predicted from the structure alone, because a CIF contains no "
            "density."
        ]
    if is_predicted(crystal):
        return _predict("no-dft", structure), [
            "The model no-dft predicted from the structure alone, because this density was itself "
            "predicted from it."
        ]
    if not _has_total(crystal):
        kinds = ", ".join(crystal.grids)
        return _predict("no-dft", structure), [
            "The model no-dft predicted from the structure alone: the model best needs the total "
            f"density, and this file contains {kinds}."
        ]
    best = _load_model("best")
    warning = describe_other_codes(find_codes([crystal]), best.about["codes"], best.core_free)
    notes = [f"{warning[0].upper()}{warning[1:]}."] if warning else []
    predicted = _predict("best", crystal)
    if reason := predicted.pop(UNUSED_DENSITY):
        notes.append(f"Predicted from the structure alone, without the density: {reason}.")
    return predicted, notes


def _has_total(crystal: Crystal) -> bool:
    """Return whether the crystal has the total density, which `best` reads."""
    return isinstance(crystal, ChargeDensity) and "total" in crystal.grids


@cache
def _load_labels() -> Dataset:
    """Load the dataset that holds the training materials of all models."""
    return load_dataset(LABELS).with_targets(ALL_TARGETS)


def _describe_neighbour(material_id: str, distance: float) -> dict[str, Any]:
    row = _load_labels().table.loc[material_id]
    values = {target: None if row[target] != row[target] else row[target] for target in ALL_TARGETS}
    return {
        "material": material_id,
        "formula": row["formula"],
        "distance": float(distance),
        "values": values,
    }


def _look_up_labels(material_id: str | None, predicted: dict[str, Any]) -> dict[str, Any]:
    """Return the labels of a bundled material, and if the model was trained on it.

    For an upload, ``trained`` is True or None: the training set may contain the material in another
    calculation.
    """
    if not material_id:
        is_same = any(neighbour["distance"] < SAME_DISTANCE for neighbour in predicted["nearest"])
        return {"known": None, "trained": is_same or None}
    is_trained = material_id in _load_model("best").about["training_ids"]
    labels = _describe_neighbour(material_id, 0.0)["values"]
    return {"known": labels, "trained": is_trained}


def _collect_facts(crystal: Crystal) -> dict[str, Any]:
    structure = as_structure(crystal)
    density = crystal if isinstance(crystal, ChargeDensity) else None
    symbol, number = _find_space_group(structure)
    return {
        "formula": structure.composition.reduced_formula,
        "space_group": symbol,
        "space_group_number": number,
        "atoms": len(structure),
        "volume": structure.volume,
        "grid": density and list(density.shape),
        "kinds": [k for k in density.kinds if k != "promolecule"] if density else [],
        "electrons": density.integral("total") if density and "total" in density.grids else None,
        "code": density and density.provenance.get("code"),
    }


def _find_space_group(structure: Structure) -> tuple[str, int]:
    try:
        analyser = SpacegroupAnalyzer(structure, symprec=SYMPREC)
        return analyser.get_space_group_symbol(), analyser.get_space_group_number()
    except Exception as error:  # spglib and pymatgen raise several that differ by version
        raise RhosightError(
            "the symmetry of this structure cannot be determined; check for overlapping atoms"
        ) from error
