"""What a worker process does for a visitor: predict, cut planes, sample the cell.

Each task takes its arguments and gives its result as JSON, in the current folder, which is the
visitor's own and empty at first.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from ..dataset.schema import TARGETS
from ..density.charge_density import ChargeDensity
from ..errors import RhosightError
from ..inputs.descriptors.blocks import structure_of
from ..inputs.drawing import density_slices
from ..inputs.progress import Progress
from ..models.descriptor_model import DescriptorModel
from ..models.folder import MODELS
from ..models.provenance import codes_of, other_codes
from . import figures as drawing
from . import reading, views
from .limits import Limits
from .reading import Crystal

Task = Callable[[dict[str, Any], Limits, Progress], dict[str, Any]]

NEAREST = 5
"""Training materials that are listed beside a prediction."""

SAME = 0.005
"""Distance at which an upload is a training material, and shown as 0.00: files round numbers."""


def warm_up() -> None:
    """Load models and data, and use all that the tasks use once."""
    material = reading.materials()[0]
    for name in ("best", "no-dft"):
        _predict(name, material.density if name == "best" else material.structure)
    drawing.slice_figure(views.cut(material.density, None, 0.0, 8.0), "total")
    drawing.block_figure(views.block(material.density, "total"))


def analyse(arguments: dict[str, Any], limits: Limits, progress: Progress) -> dict[str, Any]:
    """Read an upload, or take a bundled material, and predict.

    ``arguments``: ``name`` of the file in the folder and what it holds, ``kind``; or ``material``,
    an id. The upload is deleted once it is read.
    """
    material_id = arguments.get("material")
    progress("reading", 0, 3)
    if material_id:
        crystal: Crystal = reading.materials()[material_id].density
    else:
        upload = Path(arguments["name"])
        try:
            crystal = reading.read_upload(upload, arguments["kind"], limits)
        finally:
            upload.unlink(missing_ok=True)
    crystal, notes = reading.with_difference(crystal)
    if isinstance(crystal, ChargeDensity):
        notes = [*crystal.provenance.get("notes", []), *notes]
    progress("predicting", 1, 3)
    predicted, more = _prediction(crystal)
    progress("keeping the density", 2, 3)
    reading.keep(crystal, material_id, Path())
    return {
        "name": material_id or arguments["name"],
        "material": material_id,
        **_facts(crystal),
        **predicted,
        **_known(material_id, predicted),
        "notes": [*notes, *more],
    }


def slices(arguments: dict[str, Any], limits: Limits, progress: Progress) -> dict[str, Any]:
    """The kinds of density on a lattice plane.

    ``arguments``: ``hkl``, three integers or null; ``offset``, interplanar spacings; ``window``, Å;
    ``form``: ``figures``, ``data``, ``csv``, or ``png`` in base64.
    """
    hkl = tuple(arguments["hkl"]) if arguments["hkl"] else None
    offset, window = arguments["offset"], arguments["window"]
    density = _density()
    if arguments["form"] == "png":
        figure = density_slices(density, window, hkl, offset, views.kinds_of(density))
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=150)
        return {"png": base64.b64encode(content.getvalue()).decode()}
    found = views.cut(density, hkl, offset, window)
    if arguments["form"] == "csv":
        return {"csv": found.table().to_csv(index=False, lineterminator="\n", float_format="%.6g")}
    if arguments["form"] == "data":
        return found.to_dict()
    figures = {kind: drawing.slice_figure(found, kind) for kind in found.values}
    return {"figures": figures, "hkl": list(found.plane.hkl), "spacing": found.plane.spacing}


def block(arguments: dict[str, Any], limits: Limits, progress: Progress) -> dict[str, Any]:
    """Atoms in the conventional cell, and a density in it.

    ``arguments``: ``kind``, of which there may be none; ``form``: ``figure`` or ``data``.
    """
    crystal, kind = reading.kept(Path()), arguments["kind"]
    have = crystal.grids if isinstance(crystal, ChargeDensity) else ()
    found = views.block(crystal, kind if kind in have else None)
    if arguments["form"] == "data":
        return found.to_dict()
    figure, level = drawing.block_figure(found)
    return {"figure": figure, "kind": found.kind, "level": level}


def explain(arguments: dict[str, Any], limits: Limits, progress: Progress) -> dict[str, Any]:
    """What each modality adds to the prediction; see :func:`rhosight.explain`."""
    crystal = reading.kept(Path())
    progress("explaining: predictions without each kind of knowledge", 0, 1)
    model = _model("best" if _reads_density(crystal) else "no-dft")
    one = crystal if model.uses_density else structure_of(crystal)
    from ..explain.explain import explain as explain_predictions

    return explain_predictions(model, one, details=False).to_dict()


TASKS: dict[str, Task] = {
    "analyse": analyse,
    "slices": slices,
    "block": block,
    "explain": explain,
}


def _density() -> ChargeDensity:
    crystal = reading.kept(Path())
    if not isinstance(crystal, ChargeDensity):
        raise RhosightError("a CIF holds no density to cut; send a CHGCAR, cube or XSF file")
    return crystal


@cache
def _model(name: str) -> DescriptorModel:
    return DescriptorModel.from_pretrained(MODELS / name)


def _predict(name: str, crystal: Crystal) -> dict[str, Any]:
    model = _model(name)
    materials: Any = (
        [crystal] if isinstance(crystal, ChargeDensity) else {"structure": structure_of(crystal)}
    )
    row = model.predict_intervals(materials, nearest=NEAREST + 1).iloc[0]
    labels = reading.materials().targets.loc[model.about["training_ids"]]
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
        "nearest": [_neighbour(*pair) for pair in row["nearest"]],
    }


def _prediction(crystal: Crystal) -> tuple[dict[str, Any], list[str]]:
    """The prediction of the model that reads what is there, and what to know of it."""
    structure = structure_of(crystal)
    if not isinstance(crystal, ChargeDensity):
        return _predict("no-dft", structure), [
            "Predicted by the model no-dft, from the structure alone: a CIF holds no density."
        ]
    if not _reads_density(crystal):
        have = ", ".join(crystal.grids)
        return _predict("no-dft", structure), [
            f"Predicted by the model no-dft, from the structure alone: the best model reads total, "
            f"and of this density there is {have}."
        ]
    best = _model("best")
    said = other_codes(codes_of([crystal]), best.about["codes"], best.recipe.core_free)
    return _predict("best", crystal), [f"{said[0].upper()}{said[1:]}."] if said else []


def _reads_density(crystal: Crystal) -> bool:
    """Whether there is all that `best` reads."""
    return isinstance(crystal, ChargeDensity) and "total" in crystal.grids


def _neighbour(material_id: str, distance: float) -> dict[str, Any]:
    row = reading.materials().table.loc[material_id]
    values = {target: None if row[target] != row[target] else row[target] for target in TARGETS}
    return {
        "material": material_id,
        "formula": row["formula"],
        "distance": float(distance),
        "values": values,
    }


def _known(material_id: str | None, predicted: dict[str, Any]) -> dict[str, Any]:
    """The labels of a bundled material, and whether the model was trained on this one; of an upload
    nobody knows that it was not.
    """
    if not material_id:
        same = any(neighbour["distance"] < SAME for neighbour in predicted["nearest"])
        return {"known": None, "trained": same or None}
    trained = material_id in _model("best").about["training_ids"]
    return {"known": _neighbour(material_id, 0.0)["values"], "trained": trained}


def _facts(crystal: Crystal) -> dict[str, Any]:
    structure = structure_of(crystal)
    density = crystal if isinstance(crystal, ChargeDensity) else None
    symbol, number = _space_group(structure)
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


def _space_group(structure: Structure) -> tuple[str, int]:
    try:
        analyser = SpacegroupAnalyzer(structure, symprec=0.01)
        return analyser.get_space_group_symbol(), analyser.get_space_group_number()
    except Exception as error:  # spglib and pymatgen raise several that differ by version
        raise RhosightError(
            "no symmetry was found for this structure; check for atoms on top of each other"
        ) from error
