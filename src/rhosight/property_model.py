"""PropertyModel: fit, predict, save and load, in scikit-learn's and Hugging Face's manner."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .backbones import ClipBackbone, ImageBackbone, TextBackbone
from .contrastive import pretrained_ids
from .dataset import Dataset, split
from .density import ChargeDensity
from .image import turn_margin
from .inputs import Inputs, draw_images
from .models import build_model, encoders, reader
from .recipe import Recipe
from .rewording import reword
from .runs import open_run
from .saved_model import WEIGHTS, SavedModel, codes_of, versions, warn_of_other_codes
from .text import describe, truncated_fraction
from .training import StageResult, predict_rows, train

if TYPE_CHECKING:
    from .explain import Explanation

logger = logging.getLogger(__name__)


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
        See :class:`rhosight.saved_model.SavedModel`.
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
        self.recipe = Recipe.checked((recipe or Recipe()).model_dump() | changes)
        self.network: nn.Module | None = None
        self.history: dict[tuple[str, str], list[dict[str, float]]] = {}
        self._scaler: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        return self.recipe.targets

    @property
    def fitted(self) -> bool:
        return self.network is not None

    @property
    def uses_density(self) -> bool:
        return True  # texts alone are made from the structure of a density's file

    def fit(
        self,
        dataset: Dataset,
        run_dir: str | os.PathLike | None = None,
        progress: Callable[[str, int, int, float], None] | None = None,
    ) -> PropertyModel:
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
        dataset = dataset.require_targets(self.recipe.targets, how="any")
        targets = dataset.targets[list(self.recipe.targets)].to_numpy(dtype=float)
        fit_rows, stop_rows = inner_split(dataset, self.recipe)
        self._scaler = scaler_of(targets)
        self.history = {}

        def remember(result: StageResult) -> None:
            self.history[result.modality, result.stage] = result.history

        self.network = train(
            self.recipe,
            make_inputs(dataset, self.recipe, progress=progress),
            targets,
            fit_rows,
            stop_rows,
            self._scaler,
            run_dir=open_run(
                run_dir,
                {
                    "recipe": self.recipe.model_dump(mode="json"),
                    "dataset_sha256": dataset.fingerprint(),
                    "versions": versions(),
                },
            ),
            on_stage=remember,
            progress=progress,
            formulas=dataset.table["formula"].to_list(),
        )
        self._remember(
            dataset,
            training_ids=sorted({*dataset.ids, *pretrained_ids(self.recipe)}),
            backbones={b.name: b.weights for b in encoders(self.network)},
            codes=sorted(codes_of(dataset)) if self.recipe.uses_image else [],
        )
        return self

    def predict(
        self,
        materials: Dataset | Sequence[ChargeDensity],
        progress: Callable[[str, int, int], None] | None = None,
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
        self._check_fitted()
        if isinstance(materials, ChargeDensity):
            materials = [materials]
        warn_of_other_codes(codes_of(materials), self.about.get("codes", []))
        mean, std = self._scaler
        found = []
        chunk = 16  # memory does not grow with the number of materials
        for start in range(0, len(materials), chunk):
            part = materials[start : start + chunk]
            # full precision: files of one crystal differ in the last digits, predictions must not
            inputs = make_inputs(part, self.recipe, reader(self.network), dtype=torch.float32)
            rows = torch.arange(len(inputs))
            values = predict_rows(self.network, inputs, rows, self.recipe)
            found.append(values.numpy() * std + mean)
            if progress:
                progress("predict", start + len(part), len(materials))
        names = materials.ids if isinstance(materials, Dataset) else [d.name for d in materials]
        values = np.concatenate(found) if found else np.empty((0, len(self.recipe.targets)))
        index = pd.Index(names, name="material_id")
        return pd.DataFrame(values, index=index, columns=list(self.recipe.targets))

    def _explainer(self, background: Dataset | None) -> Callable[[Any, bool], Explanation]:
        from .explain.assembly import Predicted, explain_by_network, network_background
        from .explain.networks import NetworkExplainer

        others, sentence = network_background(background, self.about)
        tokens = reader(self.network)
        explainer = NetworkExplainer(
            self.network,
            self.recipe,
            make_inputs(others, self.recipe, tokens, dtype=torch.float32),
        )
        predicted = Predicted(self.units, *self._scaler, sentence)

        def explain(part: Dataset | Sequence[ChargeDensity], details: bool) -> Explanation:
            text = texts_of(part, self.recipe.extent)[0] if self.recipe.uses_text else ""
            inputs = make_inputs(part, self.recipe, tokens, texts=[text], dtype=torch.float32)
            density = getattr(part, "densities", part)[0]
            return explain_by_network(explainer, inputs, density, text, predicted, details)

        return explain

    def _write(self, folder: Path) -> dict[str, Any]:
        state = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
        save_backbone_configs(encoders(self.network), folder)
        mean, std = self._scaler
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "scaler": {"mean": mean.tolist(), "std": std.tolist()},
        }

    @classmethod
    def _read(cls, config: dict[str, Any], folder: Path) -> Self:
        model = cls(Recipe(**config["recipe"]))
        model._scaler = tuple(np.array(config["scaler"][name]) for name in ("mean", "std"))
        network = build_model(model.recipe, pretrained=False, saved=folder)
        network.load_state_dict(load_file(folder / WEIGHTS))
        model.network = network.eval()
        return model

    def _describe(self) -> tuple[str, str]:
        recipe = self.recipe
        backbones = "\n".join(f"- `{n}`, SHA-256 `{h}`" for n, h in self.about["backbones"].items())
        density = ", ".join(recipe.image.kinds) if recipe.uses_image else "none"
        return f"{recipe.modality} model", (
            f"Reads: density {density}; text {recipe.extent if recipe.uses_text else 'none'}.\n\n"
            f"Pre-trained encoders, fine-tuned:\n\n{backbones}\n\n"
            "Limits: valid for crystals and densities like those it was trained on. The kind of "
            "density and the code that made it matter: see `config.json` for every setting."
        )


def inner_split(dataset: Dataset, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to watch for early stopping; a formula stays in one."""
    return split(dataset, test_fraction=recipe.inner_fraction, seed=recipe.seed)


def scaler_of(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, missing labels left out; a constant column is
    scaled by one."""
    std = np.nanstd(targets, axis=0)
    return np.nanmean(targets, axis=0), np.where(std > 0, std, 1.0)


def make_inputs(
    materials: Dataset | Sequence[ChargeDensity],
    recipe: Recipe,
    text_backbone: Any = None,
    progress: Callable | None = None,
    texts: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> Inputs:
    """The images and tokens that a recipe reads of some materials; ``texts`` if already made.
    ``dtype`` is that of the images."""
    canvas = ids = mask = None
    densities = materials.densities if isinstance(materials, Dataset) else materials
    if recipe.uses_image:
        stored = None
        if isinstance(materials, Dataset):
            pad = turn_margin(recipe.image.size) if recipe.augment else 0
            stored = materials.images(recipe.image, pad)
        if stored is not None:
            canvas = torch.from_numpy(np.array(stored))
        else:
            canvas = draw_images(densities, recipe.image, recipe.augment, progress, dtype)
    if recipe.uses_text:
        backbone = text_backbone or _reader(recipe)
        texts = texts or texts_of(materials, recipe.extent)
        wordings = recipe.views if recipe.augment else 1
        said = [reword(text, number) for number in range(wordings) for text in texts]
        ids, mask = (part.reshape(wordings, len(texts), -1) for part in backbone.tokenize(said))
        cut = truncated_fraction(texts, backbone.tokenizer, backbone.max_tokens)
        if cut or text_backbone is None:
            logger.info(
                "texts (%s): %.1f %% are longer than the %d tokens that %s reads, and cut",
                recipe.extent,
                100 * cut,
                backbone.max_tokens,
                backbone.name,
            )
    return Inputs(canvas, recipe.image.size, ids, mask)


def _reader(recipe: Recipe) -> TextBackbone | ClipBackbone:
    """What tokenises the texts of a recipe."""
    if recipe.modality == "clip" and recipe.clip:
        return ClipBackbone(recipe.clip)
    return TextBackbone(recipe.text_backbone)


def texts_of(materials: Dataset | Sequence[ChargeDensity], extent: str) -> list[str]:
    """Stored descriptions where there are any, made ones otherwise."""
    if isinstance(materials, Dataset):
        stored = materials.texts.get(extent, pd.Series(None, index=materials.ids, dtype=object))
        return [
            text if isinstance(text, str) else describe(structure, extent, name)
            for text, structure, name in zip(
                stored, materials.structures, materials.ids, strict=True
            )
        ]
    return [describe(d.structure, extent, d.name) for d in materials]


def save_backbone_configs(backbones: Sequence[nn.Module], folder: Path) -> None:
    """Write beside saved weights what it takes to build a network without the backbones' own."""
    for encoder in backbones:
        what = "image" if isinstance(encoder, ImageBackbone) else "text"
        encoder.save_config(folder / f"{what}_backbone")
