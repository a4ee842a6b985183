"""PropertyModel: fit, predict, save and load, in scikit-learn's and Hugging Face's manner."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..dataset.dataset import Dataset
from ..density.charge_density import ChargeDensity
from ..inputs.descriptors.blocks import needs_density
from ..inputs.progress import EpochProgress, Progress
from ..inputs.tensors import Inputs
from ..networks.adapters import load_state, stored_state
from ..networks.backbones import save_backbone_configs
from ..networks.modules import build_model, encoders, reader
from ..networks.recipe import Recipe
from ..storage import open_run
from ..training.contrastive import pretrained_ids
from ..training.folds import inner_split, scaler_of
from ..training.stages import StageResult, predict_rows, train
from .base import SavedModel
from .folder import WEIGHTS
from .inputs import known_prototypes, make_inputs
from .provenance import codes_of, local_weights, versions, warn_of_other_codes

logger = logging.getLogger(__name__)

CHUNK = 16
"""Materials that are predicted at a time."""


class PropertyModel(SavedModel):
    """Predicts properties of crystals from their charge density and description.

    Parameters
    ----------
    recipe
        All settings; the default recipe if not given.
    **changes
        Fields of the recipe to change, e.g. ``modality="image"``.

    Attributes
    ----------
    recipe
        As given.
    units, scores, about
        See :class:`rhosight.models.base.SavedModel`.
    history
        (modality, stage) → losses per epoch (after ``fit``).

    Examples
    --------
    >>> dataset = rhosight.load_dataset("mp-fcc")
    >>> train, test = rhosight.split(dataset)
    >>> model = rhosight.PropertyModel(modality="image").fit(dataset[train])
    >>> model.predict(dataset[test])
    """

    kind: ClassVar[str] = "network"

    def __init__(self, recipe: Recipe | None = None, **changes: Any):
        super().__init__()
        self.recipe = (recipe or Recipe()).replace(**changes)
        self.network: nn.Module | None = None
        self.history: dict[tuple[str, str], list[dict[str, float]]] = {}
        self.scaler: tuple[np.ndarray, np.ndarray] | None = None
        self._prototypes: list[str] = []

    @property
    def targets(self) -> tuple[str, ...]:
        return self.recipe.targets

    @property
    def is_fitted(self) -> bool:
        return self.network is not None

    @property
    def uses_density(self) -> bool:
        return True  # texts alone are made from the structure of a density's file

    def fit(
        self,
        dataset: Dataset,
        run_dir: str | os.PathLike | None = None,
        progress: EpochProgress | None = None,
    ) -> Self:
        """Train on all materials that have at least one of the recipe's targets.

        Parameters
        ----------
        dataset
            The training part: nothing else is looked at. An inner split of it, by formula, is
            watched for early stopping.
        run_dir
            Folder for finished stages and checkpoints; the same call with the same folder goes on
            where an interrupted one stopped.
        progress
            Called with (label, step, steps, watched loss).

        Raises
        ------
        RhosightError
            If a target is unknown or has no values, or a material lacks what the recipe reads.
        """
        self.recipe.require_training()
        dataset = dataset.require_targets(self.recipe.targets, how="any")
        prototypes = known_prototypes(dataset, self.recipe)
        inputs = make_inputs(dataset, self.recipe, progress=progress, prototypes=prototypes)
        settings = {
            "task": "fit",
            "recipe": self.recipe.flat(),
            "weights": local_weights(self.recipe),
            "dataset_sha256": dataset.fingerprint(),
            "versions": versions(),
        }
        folder = open_run(run_dir, settings)
        rows = np.arange(len(dataset))
        return self.fit_rows(dataset, inputs, rows, prototypes, folder, progress)

    def fit_rows(
        self,
        dataset: Dataset,
        inputs: Inputs,
        rows: np.ndarray,
        prototypes: Sequence[str] = (),
        folder: Path | None = None,
        progress: EpochProgress | None = None,
        frozen: dict[str, Any] | None = None,
    ) -> Self:
        """:meth:`fit` on some rows of a dataset, whose inputs and ``prototypes`` (their structure
        types) are made already: what several models share is computed once.

        ``folder`` is that of an opened run; ``frozen`` as :func:`rhosight.training.stages.train` has it.
        """
        part = dataset[rows]
        targets = dataset.targets[list(self.targets)].to_numpy(dtype=float)
        fit_rows, stop_rows = (rows[r] for r in inner_split(part, self.recipe))
        self.scaler, self._prototypes = scaler_of(targets[rows]), list(prototypes)
        self.history = {}

        def remember(result: StageResult) -> None:
            self.history[result.modality, result.stage] = result.history

        self.network = train(
            self.recipe,
            inputs,
            targets,
            fit_rows,
            stop_rows,
            self.scaler,
            run_dir=folder,
            on_stage=remember,
            frozen=frozen,
            progress=progress,
            formulas=dataset.table["formula"].to_list(),
        )
        recipe = self.recipe
        reads_density = recipe.uses_image or needs_density(recipe.descriptors)
        self._remember(
            part,
            training_ids=sorted({*part.ids, *pretrained_ids(recipe)}),
            backbones={b.name: b.weights for b in encoders(self.network)},
            codes=sorted(codes_of(part)) if reads_density else [],
        )
        return self

    def predict(
        self,
        materials: Dataset | Sequence[ChargeDensity],
        progress: Progress | None = None,
    ) -> pd.DataFrame:
        """Predict the targets of materials, in :attr:`units`.

        Parameters
        ----------
        materials
            A dataset (labels are not looked at; stored texts are used), or charge densities, whose
            texts are made from their structures.
        progress
            Called with (label, done, all).

        Returns
        -------
        DataFrame (materials, targets), indexed by material id or file name.

        Raises
        ------
        RhosightError
            If the model is not fitted, or a material lacks a kind of density or a text.
        """
        self.check_fitted()
        if isinstance(materials, ChargeDensity):
            materials = [materials]
        found, names, codes = [], [], set()
        for part, inputs in self.inputs_of(materials, progress):
            found.append(self.values(inputs))
            names += part.ids if isinstance(part, Dataset) else [d.name for d in part]
            codes |= codes_of(part)
        warn_of_other_codes(codes, self.about.get("codes", []))
        values = np.concatenate(found) if found else np.empty((0, len(self.recipe.targets)))
        index = pd.Index(names, name="material_id")
        return pd.DataFrame(values, index=index, columns=list(self.recipe.targets))

    def inputs_of(
        self,
        materials: Dataset | Sequence[ChargeDensity],
        progress: Progress | None = None,
    ) -> Iterator[tuple[Dataset | Sequence[ChargeDensity], Inputs]]:
        """A few materials at a time and what the network reads of them, so that memory does not
        grow with their number; ``progress`` is called after each with (label, done, all).
        """
        for start in range(0, len(materials), CHUNK):
            part = materials[start : start + CHUNK]  # may be read from files at this moment
            yield part, self.read(part)
            if progress:
                progress("predict", start + len(part), len(materials))

    def read(
        self, materials: Dataset | Sequence[ChargeDensity], texts: Sequence[str] | None = None
    ) -> Inputs:
        """What the network reads of some materials; ``texts`` if already made."""
        return make_inputs(
            materials,
            self.recipe,
            reader(self.network),
            texts=texts,
            # full precision: files of one crystal differ in the last digits, predictions must not
            dtype=torch.float32,
            prototypes=self._prototypes,
        )

    def values(self, inputs: Inputs, rows: np.ndarray | None = None) -> np.ndarray:
        """Predictions of such inputs, or some rows of them, shape (rows, targets), in
        :attr:`units`.
        """
        mean, std = self.scaler
        rows = torch.arange(len(inputs)) if rows is None else torch.as_tensor(rows)
        return predict_rows(self.network, inputs, rows, self.recipe).numpy() * std + mean

    def _write(self, folder: Path) -> dict[str, Any]:
        state, packaged = stored_state(self.network, self.recipe)
        state = {key: value.contiguous() for key, value in state.items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
        save_backbone_configs(encoders(self.network), folder)
        mean, std = self.scaler
        return {
            "recipe": self.recipe.flat(),
            "scaler": {"mean": mean.tolist(), "std": std.tolist()},
            "prototypes": self._prototypes,
            "packaged": packaged,
        }

    @classmethod
    def _read(cls, config: dict[str, Any], folder: Path) -> Self:
        model = cls(Recipe.from_flat(config["recipe"]))
        model.scaler = tuple(np.array(config["scaler"][name]) for name in ("mean", "std"))
        model._prototypes = config.get("prototypes", [])
        weights = load_file(folder / WEIGHTS)
        columns = len(weights.get("descriptors.backbone.mean", ()))
        network = build_model(model.recipe, pretrained=False, saved=folder, columns=columns)
        # an older model's config has no "packaged": its weights are whole
        load_state(network, model.recipe, weights, config.get("packaged", {}))
        model.network = network.eval()
        return model

    def _describe(self) -> tuple[str, str]:
        recipe = self.recipe
        tuned = {
            "all": "fine-tuned",
            "last": f"the last {recipe.fine_tuning.tuned_blocks} blocks of each fine-tuned",
            "lora": f"fine-tuned by updates of rank {recipe.fine_tuning.lora_rank} (LoRA)",
        }[recipe.fine_tuning.tuned]
        backbones = "\n".join(f"- `{n}`, SHA-256 `{h}`" for n, h in self.about["backbones"].items())
        density = ", ".join(recipe.image.settings.kinds) if recipe.uses_image else "none"
        numbers = f"; descriptors {', '.join(recipe.descriptors)}" if recipe.descriptors else ""
        return f"{recipe.modalities[-1]} model", (
            f"Reads: density {density}; text {recipe.text.extent if recipe.uses_text else 'none'}"
            f"{numbers}.\n\n"
            f"Pre-trained encoders, {tuned}:\n\n{backbones}\n\n"
            "Limits: valid for crystals and densities like those it was trained on. The kind of "
            "density and the code that made it matter: see `config.json` for every setting."
        )
