"""Train a model of structures again, with crystals that were verified."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..dataset.dataset import Dataset
from ..dataset.packing import BUNDLED, load_dataset
from ..errors import RhosightError
from ..inputs.progress import Progress
from ..models.base import SavedModel
from ..models.descriptor_model import DescriptorModel
from ..models.loading import load_model


def retrain(
    name: str, verified: Dataset, folder: Path, progress: Progress | None = None
) -> DescriptorModel:
    """Train a model again on its training set and verified crystals, and save it.

    Only targets that verified crystals have are learned; the others' models stay as they are.

    Parameters
    ----------
    name
        The model, such as ``no-dft``; of a combined one, the general part learns.
    verified
        Computed crystals with labels.
    folder
        Where the new model is saved; a model that is there is loaded instead.
    progress
        See :meth:`DescriptorModel.fit`.

    Raises
    ------
    RhosightError
        If the model's training set is not at hand.
    """
    if folder.exists():
        return DescriptorModel.from_pretrained(folder)
    model = load_model(name)
    check_retrainable(name, model)
    assert isinstance(model, DescriptorModel)
    targets = tuple(target for target in model.targets if target in verified.targets)
    if not targets:
        raise RhosightError(
            f"model {name}: predicts none of the properties that GPAW computes; give another model"
        )
    learned = model.about
    known = load_dataset(learned["dataset"])[list(learned["training_ids"])]
    joined = _join(known, verified, targets, f"{learned['dataset']} and {len(verified)} computed")
    scales = {t: scale for t, scale in (model.recipe.scales or {}).items() if t in targets}
    recipe = model.recipe.model_copy(update={"targets": targets, "scales": scales or None})
    trained = DescriptorModel(recipe).fit(joined, progress=progress)
    trained.save_pretrained(folder)
    return trained


def _join(known: Dataset, verified: Dataset, targets: Sequence[str], name: str) -> Dataset:
    """Return the training set with verified crystals, as bare crystals."""
    columns = ["formula", "spacegroup_number", *targets]
    labels = pd.concat([known.table[columns], verified.table[columns]])
    return Dataset.from_densities(
        [*known.crystals, *verified.crystals], labels, about={"name": name}
    )


def check_retrainable(name: str, model: SavedModel) -> None:
    """Raise RhosightError unless a model can learn from more crystals."""
    if model.uses_density:
        raise RhosightError(
            f"model {name}: reads densities, so it cannot learn from bare crystals; give "
            "no-dft first, or use one round"
        )
    abouts = [model.about, model.about.get("special", model.about)]  # of a combined model
    bundled = all(about.get("dataset") in BUNDLED for about in abouts)
    if not isinstance(model, DescriptorModel) or not bundled:
        raise RhosightError(
            f"model {name}: its training set is not a bundled dataset, so it cannot learn from "
            "verified crystals; use no-dft, or one round"
        )
