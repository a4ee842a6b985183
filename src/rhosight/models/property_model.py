"""PropertyModel: a network with the methods of scikit-learn and Hugging Face."""

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

from ..dataset.dataset import Dataset
from ..density.charge_density import ChargeDensity
from ..inputs.descriptors.blocks import needs_density
from ..inputs.progress import EpochProgress, Progress
from ..inputs.tensors import Inputs
from ..networks.adapters import load_state, select_state
from ..networks.backbones import save_backbone_configs
from ..networks.modules import Network, build_model
from ..networks.recipe import Recipe
from ..storage import open_run
from ..training.contrastive import read_pretrained_ids
from ..training.folds import prepare_fold
from ..training.stages import EncoderCache, StageResult, predict_rows, train
from .base import SavedModel
from .folder import WEIGHTS
from .inputs import find_prototypes, make_inputs
from .materials import as_crystals, as_densities, name_crystals
from .provenance import collect_versions, find_codes, hash_weights, warn_of_other_codes

logger = logging.getLogger(__name__)

CHUNK = 16
"""Number of materials predicted at a time."""


class PropertyModel(SavedModel):
    """Predicts properties of crystals from their charge density and description.

    Parameters
    ----------
    recipe
        All settings; the default recipe if not given.
    **changes
        Fields of the recipe to change, as :meth:`rhosight.Recipe.replace` takes them, e.g.
        ``modality="image"``.

    Attributes
    ----------
    recipe
        The settings.
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
        self.network: Network | None = None
        self.history: dict[tuple[str, str], list[dict[str, float]]] = {}
        self.scaler: tuple[np.ndarray, np.ndarray] | None = None
        self._prototypes: list[str] = []

    @property
    def targets(self) -> tuple[str, ...]:
        """The predicted targets, in order."""
        return self.recipe.targets

    @property
    def is_fitted(self) -> bool:
        """True if the model can predict."""
        return self.network is not None

    @property
    def uses_density(self) -> bool:
        """True if the model needs densities; a text is made from the structure."""
        return self.recipe.uses_image or needs_density(self.recipe.descriptors)

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
            The training set. An inner split of it, by formula, is watched for early stopping.
        run_dir
            Folder for finished stages and checkpoints; the same call with the same folder resumes
            an interrupted one.
        progress
            Called with (label, step, steps, watched loss).

        Raises
        ------
        RhosightError
            If a target is unknown or has no labels, or a material lacks data that the recipe reads.
        """
        self.recipe.require_training()
        dataset = dataset.require_targets(self.recipe.targets, how="any")
        prototypes = find_prototypes(dataset, self.recipe)
        inputs = make_inputs(dataset, self.recipe, progress=progress, prototypes=prototypes)
        settings = {
            "task": "fit",
            "recipe": self.recipe.flat(),
            "weights": hash_weights(self.recipe.weight_sources),
            "dataset_sha256": dataset.fingerprint(),
            "versions": collect_versions(),
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
        cache: EncoderCache | None = None,
    ) -> Self:
        """Fit as :meth:`fit`, on some rows of a dataset whose inputs exist already.

        Parameters
        ----------
        dataset, inputs
            Materials, and what the network reads of them.
        rows
            The training set.
        prototypes
            Structure types that the inputs were made with.
        folder
            Folder of an open run.
        progress
            Called with (label, step, steps, watched loss).
        cache
            Shared with other models of the same inputs and recipe.
        """
        part = dataset[rows]
        data = prepare_fold(self.recipe, dataset, inputs, rows)
        self.scaler, self._prototypes = data.scaler, list(prototypes)
        self.history = {}

        def remember(result: StageResult) -> None:
            self.history[result.modality, result.stage] = result.history

        network = self.network = train(self.recipe, data, cache, folder, remember, progress)
        self._remember(
            part,
            training_ids=sorted({*part.ids, *read_pretrained_ids(self.recipe.pretrained_folder)}),
            backbones={encoder.name: encoder.weights for encoder in network.encoders},
            codes=sorted(find_codes(part)) if self.uses_density else [],
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
            A dataset (labels are ignored; stored texts are used), or charge densities, whose texts
            are made from their structures. A model of texts alone also takes structures.
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
        materials = self.accept(materials)
        values: list[np.ndarray] = []
        names: list[str] = []
        codes: set[str] = set()
        for part, inputs in self.iterate_inputs(materials, progress):
            values.append(self.predict_inputs(inputs))
            names += part.ids if isinstance(part, Dataset) else [d.name for d in part]
            codes |= find_codes(part)
        warn_of_other_codes(codes, self.about.get("codes", []))
        table = np.concatenate(values) if values else np.empty((0, len(self.targets)))
        index = pd.Index(names, name="material_id")
        return self._check_predictions(pd.DataFrame(table, index, list(self.targets)))

    def accept(self, materials: Any) -> Any:
        """Return materials that the network reads, from all forms that users hold."""
        if self.uses_density:
            return as_densities(materials)
        return name_crystals(as_crystals(materials))

    def iterate_inputs(
        self,
        materials: Dataset | Sequence[ChargeDensity],
        progress: Progress | None = None,
    ) -> Iterator[tuple[Dataset | Sequence[ChargeDensity], Inputs]]:
        """Yield a few materials at a time, with what the network reads of them.

        Memory does not grow with the number of materials. ``progress`` is called after each part
        with (label, done, all).
        """
        for start in range(0, len(materials), CHUNK):
            part = materials[start : start + CHUNK]  # a lazy sequence reads its files here
            yield part, self.read(part)
            if progress:
                progress("predict", start + len(part), len(materials))

    def read(
        self, materials: Dataset | Sequence[ChargeDensity], texts: Sequence[str] | None = None
    ) -> Inputs:
        """Return the network's inputs for some materials; ``texts`` if they exist already."""
        return make_inputs(
            materials,
            self.recipe,
            self._fitted_network.reader,
            texts=texts,
            # full precision: files of one crystal differ in the last digits; predictions must agree
            dtype=torch.float32,
            prototypes=self._prototypes,
        )

    def predict_inputs(self, inputs: Inputs, rows: np.ndarray | None = None) -> np.ndarray:
        """Return predictions for all or some inputs, (rows, targets), in :attr:`units`."""
        assert self.scaler is not None
        mean, std = self.scaler
        where = torch.arange(len(inputs)) if rows is None else torch.as_tensor(rows)
        predicted = predict_rows(self._fitted_network, inputs, where, self.recipe)
        return predicted.numpy() * std + mean

    @property
    def _fitted_network(self) -> Network:
        self.check_fitted()
        assert self.network is not None
        return self.network

    def _write(self, folder: Path) -> dict[str, Any]:
        network = self._fitted_network
        assert self.scaler is not None
        state, packaged = select_state(network, self.recipe)
        state = {key: value.contiguous() for key, value in state.items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
        save_backbone_configs(network.encoders, folder)
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
        mean, std = (np.array(config["scaler"][name]) for name in ("mean", "std"))
        model.scaler = mean, std
        model._prototypes = config.get("prototypes", [])
        weights = load_file(folder / WEIGHTS)
        _check_tensors(weights, len(mean), len(model.targets))
        columns = len(weights.get("descriptors.backbone.mean", ()))
        network = build_model(model.recipe, pretrained=False, saved=folder, columns=columns)
        # the config of an older model has no "packaged": its weights are complete
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
            "Limits: valid for crystals and densities like those of the training set. The kind of "
            "density and the code that computed it matter: see `config.json` for all settings."
        )


def _check_tensors(weights: dict[str, torch.Tensor], scaled: int, targets: int) -> None:
    """Raise ValueError if saved weights are not finite numbers in single precision."""
    if scaled != targets:
        raise ValueError(f"a scaler of {scaled} targets for {targets}")
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ValueError(f"tensor {name!r} is {tensor.dtype}, expected torch.float32")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"tensor {name!r} contains values that are not finite")
