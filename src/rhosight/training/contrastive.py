"""Contrastive pre-training of a dual encoder, and retrieval with it.

Image and text of one material are pulled together in the space that the two encoders share, those
of different materials pushed apart (CLIP: Radford et al. 2021, arXiv:2103.00020, section 2.3). The
encoder then retrieves a material's density by its description, and the description by the density.
No labels are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RhosightError, first_line
from ..inputs.progress import EpochProgress
from ..inputs.tensors import Inputs
from ..networks.dual_encoder import AnyDualEncoder
from ..networks.modules import ClipModel
from ..networks.recipe import Recipe
from ..storage import check_regular_files, read_json, validate_content
from .plan import EVAL_BATCH, Plan, Stage

RANKS = (1, 5, 10)
"""The k of recall@k."""

_LARGEST_SCALE = math.log(100)  # CLIP section 2.5: no logit is scaled by more than 100


def contrastive_loss(image: Tensor, text: Tensor, logit_scale: Tensor, formulas: Tensor) -> Tensor:
    """Return CLIP's symmetric loss of n pairs of embeddings, (n, width) each.

    Two materials with the same code in ``formulas`` (n,) are no negatives of each other: their
    texts may be identical.
    """
    image, text = functional.normalize(image, dim=1), functional.normalize(text, dim=1)
    logits = logit_scale.clamp(max=_LARGEST_SCALE).exp() * image @ text.T
    own = torch.arange(len(logits), device=logits.device)
    alike = formulas[:, None] == formulas[None, :]
    alike.fill_diagonal_(False)
    logits = logits.masked_fill(alike.to(logits.device), float("-inf"))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images and texts to pre-train on.

    Attributes
    ----------
    inputs, formulas
        Images and tokens, and the formulas, of n materials.
    fit_rows, stop_rows
        Rows to learn from, and rows to watch for early stopping.
    """

    inputs: Inputs
    formulas: Sequence[str]
    fit_rows: np.ndarray
    stop_rows: np.ndarray


def pretrain_encoder(
    encoder: AnyDualEncoder,
    pairs: Pairs,
    recipe: Recipe,
    run_dir: Path | None = None,
    progress: EpochProgress | None = None,
) -> list[dict[str, float]]:
    """Train an encoder in place on images and texts that belong together.

    Parameters
    ----------
    encoder
        Encoder that learns; it ends with the weights of the epoch with the lowest watched loss.
    pairs
        The materials.
    recipe
        Its groups ``pretraining``, ``augmentation``, ``training`` and ``hardware``, and its
        ``seed``, are used.
    run_dir
        Folder for checkpoints; the same call with the same folder resumes an interrupted one.
    progress
        Called with (label, epoch, epochs, watched loss).

    Returns
    -------
    The losses of each epoch.
    """
    from .loop import fit_stage, quiet_lightning

    with torch.random.fork_rng(devices=[]), quiet_lightning():
        return fit_stage(_Contrast(recipe, encoder, pairs), pairs.fit_rows, run_dir, progress)


class _Contrast(Stage):
    """The stage of contrastive pre-training."""

    def __init__(self, recipe: Recipe, encoder: AnyDualEncoder, pairs: Pairs):
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
        super().__init__(plan, encoder, pairs.stop_rows)
        self.recipe, self.inputs = recipe, pairs.inputs
        self.codes = torch.as_tensor(pd.factorize(np.asarray(pairs.formulas))[0])

    @property
    def encoder(self) -> AnyDualEncoder:
        """The network, which is a dual encoder."""
        assert isinstance(self.network, AnyDualEncoder)
        return self.network

    def loss(self, rows: Tensor, learning: bool) -> tuple[Tensor, int]:
        """Return the contrastive loss of some pairs, and their number."""
        augment = learning and self.recipe.augmentation.enabled
        batch = self.inputs.batch(ClipModel.names, rows, augment)
        image, *tokens = (part.to(self.device) for part in batch)
        loss = contrastive_loss(
            self.encoder.image_embedding(image),
            self.encoder.text_embedding(*tokens),
            self.encoder.logit_scale,
            self.codes[rows],
        )
        return loss, len(rows)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the weights that learn; the temperature without weight decay."""
        settings, parts = self.recipe.pretraining, self.encoder.parts
        rates = {"image": settings.image_rate, "text": settings.text_rate}
        groups: list[dict[str, Any]] = [
            {"params": list(module.parameters()), "lr": rates.get(name, settings.learning_rate)}
            for name, modules in parts.items()
            for module in modules
        ]
        scale = {"params": [self.encoder.logit_scale], "lr": settings.learning_rate}
        return [*groups, {**scale, "weight_decay": 0.0}]


def compute_embeddings(
    encoder: AnyDualEncoder, inputs: Inputs, rows: Sequence[int] | None = None, views: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors of materials' images and texts, (rows, width) each.

    A vector is the mean over ``views`` fixed turns or wordings, see
    :meth:`rhosight.inputs.tensors.Inputs.batch`.
    """
    where = torch.arange(len(inputs)) if rows is None else torch.as_tensor(np.asarray(rows))
    device = next(encoder.parameters()).device
    encoder.eval()
    images: list[Tensor] = []
    texts: list[Tensor] = []
    with torch.inference_mode():
        for part in where.split(EVAL_BATCH):
            pairs = []
            for view in range(views):
                batch = inputs.batch(ClipModel.names, part, view=view)
                image, *tokens = (tensor.to(device) for tensor in batch)
                pair = encoder.image_embedding(image), encoder.text_embedding(*tokens)
                pairs.append([functional.normalize(vectors, dim=1) for vectors in pair])
            for means, of_views in zip((images, texts), zip(*pairs, strict=True), strict=True):
                mean = torch.stack(of_views).mean(0)
                means.append(functional.normalize(mean, dim=1).cpu())
    return torch.cat(images).numpy(), torch.cat(texts).numpy()


def score_retrieval(image: np.ndarray, text: np.ndarray, formulas: Sequence[str]) -> pd.DataFrame:
    """Score how well images and texts retrieve each other by cosine similarity.

    Each material's embedding is a query. Its candidates are the other kind of embedding of the same
    material and of all materials of another formula. A tie counts half.

    Parameters
    ----------
    image, text
        Unit vectors, (n, width) each, as :func:`compute_embeddings` returns them.
    formulas
        Formulas of the n materials.

    Returns
    -------
    DataFrame with a row for each direction and one for ``chance`` (the expectation of a random
    order), and columns ``recall@1``, ``recall@5``, ``recall@10`` (fractions of the queries whose
    own counterpart is among the first k), ``median_rank`` (1 is best) and ``materials``.
    """
    names = np.asarray(formulas)
    others = names[:, None] != names[None, :]
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
    """Load weights that ``rhosight pretrain`` wrote into an encoder.

    The default folder is the recipe's ``pretraining.weights``.

    Raises
    ------
    RhosightError
        If the folder holds no such weights, or those of other backbones than the recipe's.
    """
    folder = folder or Path(recipe.pretraining.weights or "")
    about = read_pretraining(folder)["recipe"]
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


def read_pretrained_ids(folder: str | None) -> set[str]:
    """Return the ids of an encoder's pre-training materials; none without a folder."""
    return (
        set() if folder is None else set(read_pretraining(Path(folder))["about"]["pretrained_ids"])
    )


class _EncoderAbout(BaseModel):
    model_config = ConfigDict(strict=True)

    pretrained_ids: list[str]


class _EncoderConfig(BaseModel):
    """The ``config.json`` of an encoder; entries that are not listed are ignored."""

    model_config = ConfigDict(strict=True)

    recipe: dict[str, Any]
    retrieval: dict[str, dict[str, float | None]] = {}
    history: list[dict[str, float | None]] = []
    about: _EncoderAbout


def read_pretraining(folder: Path) -> dict[str, Any]:
    """Return the ``config.json`` of a folder that ``rhosight pretrain`` wrote.

    Raises
    ------
    RhosightError
        If the folder holds no such file.
    """
    try:
        check_regular_files(folder)
        config = read_json(folder / "config.json")
        validate_content(_EncoderConfig, config)
    except (OSError, ValueError) as error:
        raise RhosightError(
            f"{folder}: not a pre-trained dual encoder; give a folder that `rhosight pretrain` "
            "wrote"
        ) from error
    return config
