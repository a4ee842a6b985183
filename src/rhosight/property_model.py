"""PropertyModel: fit, predict, save and load, in scikit-learn's and Hugging Face's manner."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from . import __version__
from .dataset import Dataset, split
from .density import ChargeDensity
from .errors import RhosightError
from .image import turn_margin
from .inputs import Inputs, draw_images
from .models import StackedModel
from .rewording import reword
from .runs import open_run
from .text import describe, truncated_fraction
from .training import Recipe, StageResult, build_model, predict_rows, train

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the saved folder; a folder of a later one is refused."""


class PropertyModel:
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
    units
        Target → unit (after ``fit``).
    history
        (modality, stage) → losses per epoch (after ``fit``).
    scores
        Target → R² and RMSE on the materials given to ``score``; saved with the model.

    Examples
    --------
    >>> dataset = rhosight.load_dataset("mp-fcc")
    >>> train, test = rhosight.split(dataset)
    >>> model = rhosight.PropertyModel(modality="image").fit(dataset[train])
    >>> model.predict(dataset[test])
    """

    def __init__(self, recipe: Recipe | None = None, **changes: Any):
        self.recipe = Recipe.checked((recipe or Recipe()).model_dump() | changes)
        self.network: nn.Module | None = None
        self.units: dict[str, str] = {}
        self.history: dict[tuple[str, str], list[dict[str, float]]] = {}
        self._scaler: tuple[np.ndarray, np.ndarray] | None = None
        self.scores: dict[str, dict[str, float]] = {}
        self._about: dict[str, Any] = {}

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
        )
        self.units = {name: dataset.units[name] for name in self.recipe.targets}
        self._about = {
            "dataset": dataset.metadata.get("name", ""),
            "dataset_sha256": dataset.fingerprint(),
            "materials": len(dataset),
            "training_ids": dataset.ids,
            "licence": dataset.metadata.get("licence", ""),
            "attribution": dataset.metadata.get("attribution", ""),
            "backbones": {b.name: b.weights for b in _backbones(self.network)},
            "codes": sorted(_codes(dataset.densities)) if self.recipe.uses_image else [],
            "versions": versions(),
        }
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
        if self.network is None:
            raise RhosightError("this model is not fitted; call fit, or load one: from_pretrained")
        if isinstance(materials, ChargeDensity):
            materials = [materials]
        mean, std = self._scaler
        found = []
        trained = set(self._about.get("codes", ()))
        others: set[str] = set()
        chunk = 16  # memory does not grow with the number of materials
        for start in range(0, len(materials), chunk):
            part = materials[start : start + chunk]
            densities = part.densities if isinstance(part, Dataset) else part
            if trained:
                others |= _codes(densities) - trained
            # full precision: files of one crystal differ in the last digits, predictions must not
            inputs = make_inputs(part, self.recipe, self._text_backbone, dtype=torch.float32)
            rows = torch.arange(len(inputs))
            values = predict_rows(self.network, inputs, rows, self.recipe)
            found.append(values.numpy() * std + mean)
            if progress:
                progress("predict", start + len(part), len(materials))
        if others:
            logger.warning(
                "densities of %s, but the model was trained on those of %s: near the nuclei they "
                "are not the same quantity, and predictions may be off",
                ", ".join(sorted(others)),
                ", ".join(sorted(trained)),
            )
        names = materials.ids if isinstance(materials, Dataset) else [d.name for d in materials]
        values = np.concatenate(found) if found else np.empty((0, len(self.recipe.targets)))
        index = pd.Index(names, name="material_id")
        return pd.DataFrame(values, index=index, columns=list(self.recipe.targets))

    def score(self, dataset: Dataset) -> dict[str, dict[str, float]]:
        """R², RMSE (in the target's unit) and count for each target; remembered in the card.

        Raises
        ------
        RhosightError
            If a material was part of the training data: such a score would mean nothing.
        """
        seen = set(self._about.get("training_ids", ())) & set(dataset.ids)
        if seen:
            raise RhosightError(
                f"{len(seen)} of these materials were trained on, {min(seen)} for one: score others"
            )
        predicted = self.predict(dataset)
        self.scores = {}
        for target in self.recipe.targets:
            true = dataset.targets[target].to_numpy(dtype=float)
            known = ~np.isnan(true)
            pair = true[known], predicted[target].to_numpy()[known]
            score = {"r2": r2_score(*pair), "rmse": rmse(*pair), "n": int(known.sum())}
            self.scores[target] = score
        return self.scores

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write weights (safetensors), config (JSON), tokenizer and model card to a folder.

        The folder appears at once or not at all; an existing model in it is replaced.
        """
        if self.network is None:
            raise RhosightError("nothing to save: the model is not fitted")
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()) and not (folder / "config.json").exists():
            raise RhosightError(f"{folder}: not empty and not a model; choose another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            state = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
            save_file(state, draft / "model.safetensors", metadata={"format": "pt"})
            mean, std = self._scaler
            config = {
                "rhosight_format": FORMAT,
                "recipe": self.recipe.model_dump(mode="json"),
                "units": self.units,
                "scaler": {"mean": mean.tolist(), "std": std.tolist()},
                "scores": self.scores,
                "about": self._about,
            }
            (draft / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False))
            (draft / "README.md").write_text(self._card())
            if text := self._text_backbone:
                text.tokenizer.save_pretrained(draft / "text_backbone")
                text.model.config.save_pretrained(draft / "text_backbone")
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(draft, folder)
            folder.chmod(0o755)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> PropertyModel:
        """Load a model that ``save_pretrained`` wrote: a local folder, or a Hugging Face hub id.

        Raises
        ------
        RhosightError
            If the folder is not such a model, or the hub cannot be reached.
        """
        path = Path(folder)
        if not path.exists() and str(folder).count("/") == 1 and not str(folder).startswith("."):
            path = _from_hub(str(folder))
        config_path, weights = path / "config.json", path / "model.safetensors"
        if not path.is_dir() or not config_path.exists() or not weights.exists():
            raise RhosightError(
                f"{folder}: not a rhosight model; give a folder with config.json and "
                "model.safetensors, as `rhosight train` writes it"
            )
        try:
            config = json.loads(config_path.read_text())
            if config.get("rhosight_format") != FORMAT:
                raise ValueError(f"format {config.get('rhosight_format')!r}, expected {FORMAT}")
            model = cls(Recipe(**config["recipe"]))
            scaler = config["scaler"]
            model._scaler = np.array(scaler["mean"]), np.array(scaler["std"])
            model.units, model._about = config["units"], config["about"]
            model.scores = config["scores"]
            network = build_model(
                model.recipe, pretrained=False, text_source=str(path / "text_backbone")
            )
            network.load_state_dict(load_file(weights))
        except (ValueError, KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0][:160]
            raise RhosightError(
                f"{folder}: not a readable rhosight model ({reason}); train or download it again"
            ) from error
        model.network = network.eval()
        return model

    @property
    def _text_backbone(self):
        if not self.recipe.uses_text or self.network is None:
            return None
        stacked = isinstance(self.network, StackedModel)
        return (self.network.text if stacked else self.network).backbone

    def _score_lines(self) -> str:
        if not self.scores:
            return "Not scored on materials of its own: no test part was held out.\n"
        rows = [
            f"| `{name}` | {s['r2']:.3f} | {s['rmse']:.4g} {self.units[name]} | {s['n']} |"
            for name, s in self.scores.items()
        ]
        head = ["Scores on held-out materials:", "", "| target | R² | RMSE | materials |"]
        return "\n".join([*head, "| --- | --- | --- | --- |", *rows, ""])

    def _card(self) -> str:
        """The model card, Markdown with the hub's YAML header."""
        about, recipe = self._about, self.recipe
        targets = "\n".join(f"- `{name}` ({self.units[name]})" for name in recipe.targets)
        backbones = "\n".join(f"- `{n}`, SHA-256 `{h}`" for n, h in about["backbones"].items())
        density = ", ".join(recipe.image.kinds) if recipe.uses_image else "none"
        return f"""---
library_name: rhosight
tags: [materials-science, charge-density]
---

# {recipe.modality} model for {", ".join(recipe.targets)}

Predicts, for a crystal:

{targets}

Reads: density {density}; text {recipe.extent if recipe.uses_text else "none"}.

Trained on {about["materials"]} materials of {about["dataset"] or "an unnamed dataset"}
(SHA-256 `{about["dataset_sha256"]}`). {about["attribution"]} {about["licence"]}

{self._score_lines()}
Pre-trained encoders, fine-tuned:

{backbones}

Limits: valid for crystals and densities like those it was trained on. The kind of density and the
code that made it matter: see `config.json` for every setting. Made with rhosight {__version__}.
"""


def _codes(densities: Sequence[ChargeDensity]) -> set[str]:
    """Codes that densities come from, as far as their provenance tells."""
    return {str(d.provenance["code"]) for d in densities if d.provenance.get("code")}


def r2_score(true: np.ndarray, predicted: np.ndarray) -> float:
    """Coefficient of determination; NaN for a truth without spread."""
    spread = np.sum((true - true.mean()) ** 2) if len(true) else 0.0
    return float(1 - np.sum((true - predicted) ** 2) / spread) if spread > 0 else float("nan")


def rmse(true: np.ndarray, predicted: np.ndarray) -> float:
    """Root mean square error, in the unit of the values."""
    return float(np.sqrt(np.mean((true - predicted) ** 2))) if len(true) else float("nan")


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
    from .backbones import TextBackbone

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
        backbone = text_backbone or TextBackbone(recipe.text_backbone)
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


def versions() -> dict[str, str]:
    """Versions of what decides about the numbers."""
    packages = (
        "torch",
        "timm",
        "transformers",
        "lightning",
        "pymatgen",
        "robocrys",
        "scikit-learn",
    )
    return {"rhosight": __version__} | {name: version(name) for name in packages}


def _backbones(network: nn.Module) -> list:
    if isinstance(network, StackedModel):
        return [network.image.backbone, network.text.backbone]
    return [network.backbone]


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise RhosightError(
            f"{name}: no such folder, and not found on the model hub; give a folder that "
            "`rhosight train` wrote"
        ) from error
