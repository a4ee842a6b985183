"""Contrastive pre-training of a dual encoder, and what it is good for without any label.

An image and a text of one material are drawn together in the space that the two encoders share,
those of different materials apart (CLIP: Radford et al. 2021, arXiv:2103.00020, section 2.3). The
encoder then finds a material's density by its description, and the description by the density.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RhosightError, first_line
from ..inputs.progress import EpochProgress
from ..inputs.tensors import Inputs
from ..networks.backbones import ClipBackbone
from ..networks.modules import ClipModel, DualEncoder
from ..networks.recipe import Recipe
from .loop import EVAL_BATCH, Plan, Stage, fit_stage, quiet_lightning

Encoder = ClipBackbone | DualEncoder

RANKS = (1, 5, 10)
"""The k of recall@k."""

_LARGEST_SCALE = math.log(100)  # CLIP section 2.5: no logit is scaled by more than 100


def contrastive_loss(image: Tensor, text: Tensor, logit_scale: Tensor, formulas: Tensor) -> Tensor:
    """CLIP's symmetric loss of n pairs of embeddings, each (n, width).

    Of two materials with one formula (n,), neither is a negative of the other: their texts may be
    the same to the letter.
    """
    image, text = functional.normalize(image, dim=1), functional.normalize(text, dim=1)
    logits = logit_scale.clamp(max=_LARGEST_SCALE).exp() * image @ text.T
    own = torch.arange(len(logits), device=logits.device)
    alike = formulas[:, None] == formulas[None, :]
    alike.fill_diagonal_(False)
    logits = logits.masked_fill(alike.to(logits.device), float("-inf"))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def pretrain_encoder(
    encoder: Encoder,
    inputs: Inputs,
    formulas: Sequence[str],
    fit_rows: np.ndarray,
    stop_rows: np.ndarray,
    recipe: Recipe,
    run_dir: Path | None = None,
    progress: EpochProgress | None = None,
) -> list[dict[str, float]]:
    """Train an encoder in place on images and texts that belong together.

    Parameters
    ----------
    encoder
        What learns; it ends with the weights of the epoch with the lowest watched loss.
    inputs, formulas
        Of n materials.
    fit_rows, stop_rows
        Which materials are learned from, and which are watched.
    recipe
        Its ``pretraining``, ``augment``, ``weight_decay`` and ``seed`` are read.
    run_dir
        The same folder goes on where an interrupted call stopped.
    progress
        Called with (label, epoch, epochs, watched loss).

    Returns
    -------
    The losses of each epoch.
    """
    codes = torch.as_tensor(pd.factorize(np.asarray(formulas))[0])
    with torch.random.fork_rng(devices=[]), quiet_lightning():
        stage = _Contrast(recipe, encoder, inputs, codes, stop_rows)
        return fit_stage(stage, fit_rows, run_dir, progress)


class _Contrast(Stage):
    def __init__(
        self, recipe: Recipe, encoder: Encoder, inputs: Inputs, codes: Tensor, stop: np.ndarray
    ):
        settings = recipe.pretraining
        plan = Plan(
            label="pre-training",
            seeds=(recipe.seed, 100),  # the protocol's stages are numbered from 0
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            patience=settings.patience,
            weight_decay=recipe.training.weight_decay,
            precision=recipe.hardware.precision,
        )
        super().__init__(plan, encoder, stop)
        self.recipe, self.inputs, self.codes = recipe, inputs, codes

    def loss(self, rows: Tensor, learning: bool) -> tuple[Tensor, int]:
        augment = learning and self.recipe.augmentation.enabled
        batch = self.inputs.batch(ClipModel.inputs, rows, augment)
        image, *tokens = (part.to(self.device) for part in batch)
        loss = contrastive_loss(
            self.network.image_embedding(image),
            self.network.text_embedding(*tokens),
            self.network.logit_scale,
            self.codes[rows],
        )
        return loss, len(rows)

    def parameter_groups(self):
        settings, parts = self.recipe.pretraining, self.network.parts
        rates = {"image": settings.image_rate, "text": settings.text_rate}
        groups = [
            {"params": list(module.parameters()), "lr": rates.get(name, settings.learning_rate)}
            for name, modules in parts.items()
            for module in modules
        ]
        scale = {"params": [self.network.logit_scale], "lr": settings.learning_rate}
        return [*groups, scale | {"weight_decay": 0.0}]


def embeddings(
    encoder: Encoder, inputs: Inputs, rows: Sequence[int] | None = None, views: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of the images and of the texts of some materials, each (rows, width).

    Each is the mean over so many fixed turns or wordings, see :meth:`Inputs.batch`.
    """
    rows = torch.arange(len(inputs)) if rows is None else torch.as_tensor(np.asarray(rows))
    device = next(encoder.parameters()).device
    encoder.eval()
    images, texts = [], []
    with torch.inference_mode():
        for part in rows.split(EVAL_BATCH):
            both = []
            for view in range(views):
                batch = inputs.batch(ClipModel.inputs, part, view=view)
                image, *tokens = (tensor.to(device) for tensor in batch)
                found = encoder.image_embedding(image), encoder.text_embedding(*tokens)
                both.append([functional.normalize(one, dim=1) for one in found])
            for kept, views_of_one in zip((images, texts), zip(*both, strict=True), strict=True):
                mean = torch.stack(views_of_one).mean(0)
                kept.append(functional.normalize(mean, dim=1).cpu())
    return torch.cat(images).numpy(), torch.cat(texts).numpy()


def retrieval(image: np.ndarray, text: np.ndarray, formulas: Sequence[str]) -> pd.DataFrame:
    """How well images and texts find each other, by cosine similarity.

    Each material's embedding is a query; the candidates are the other kind of embedding of that
    material and of all materials of another formula. A tie counts half.

    Parameters
    ----------
    image, text
        Unit vectors, (n, width) each, as :func:`embeddings` returns them.
    formulas
        Of the n materials.

    Returns
    -------
    DataFrame with a row for each direction and one for ``chance`` (the expectation of a random
    order), and columns ``recall@1``, ``recall@5``, ``recall@10`` (fractions of the queries whose
    own counterpart is among the first k), ``median_rank`` (1 is best) and ``materials``.
    """
    formulas = np.asarray(formulas)
    others = formulas[:, None] != formulas[None, :]
    similarity = text @ image.T
    rows = {}
    for name, table in (("text → density", similarity), ("density → text", similarity.T)):
        own = np.diag(table)[:, None]
        above = ((table > own) & others).sum(1) + 0.5 * ((table == own) & others).sum(1)
        rows[name] = _rank_scores(1 + above)
    candidates = 1 + others.sum(1)
    rows["chance"] = {f"recall@{k}": float(np.minimum(k / candidates, 1).mean()) for k in RANKS}
    rows["chance"]["median_rank"] = float(np.median((candidates + 1) / 2))
    frame = pd.DataFrame(rows).T
    frame["materials"] = len(formulas)
    return frame


def _rank_scores(ranks: np.ndarray) -> dict[str, float]:
    scores = {f"recall@{k}": float((ranks <= k).mean()) for k in RANKS}
    return scores | {"median_rank": float(np.median(ranks))}


def load_weights(encoder: nn.Module, recipe: Recipe, folder: Path | None = None) -> None:
    """Give an encoder the weights of a folder that ``rhosight pretrain`` wrote.

    By default the one that the recipe's ``pretraining`` names.

    Raises
    ------
    RhosightError
        If it is no such folder, or is of other backbones than the recipe's.
    """
    folder = folder or Path(recipe.pretraining.weights or "")
    about = pretraining_config(folder)["recipe"]
    there = [about["clip"], about["image_backbone"], about["text_backbone"]]
    wanted = [recipe.clip, recipe.image.backbone, recipe.text.backbone]
    if there != wanted or about["pretraining"]["width"] != recipe.pretraining.width:
        raise RhosightError(
            f"{folder}: pre-trained with other backbones or another width than the recipe's; give "
            f"the recipe clip {there[0]}, image.backbone {there[1]}, text.backbone {there[2]} and "
            f"pretraining.width {about['pretraining']['width']}"
        )
    try:
        encoder.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise RhosightError(
            f"{folder}: unreadable weights ({first_line(error)}); pre-train again"
        ) from error


def pretrained_ids(recipe: Recipe) -> set[str]:
    """Ids of the materials that a recipe's encoder has seen before its training begins."""
    if recipe.modality != "clip" or recipe.pretraining.weights is None:
        return set()
    return set(pretraining_config(Path(recipe.pretraining.weights))["about"]["pretrained_ids"])


def pretraining_config(folder: Path) -> dict:
    """The ``config.json`` of a folder that ``rhosight pretrain`` wrote.

    Raises
    ------
    RhosightError
        If it is no such folder.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "pretrained_ids" not in config["about"]:
            raise KeyError("pretrained_ids")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RhosightError(
            f"{folder}: not a pre-trained dual encoder; give a folder that `rhosight pretrain` "
            "wrote"
        ) from error
    return config
