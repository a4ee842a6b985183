"""ImageTextEncoder: learn without labels to match densities and descriptions.

>>> dataset = rhosight.load_dataset("mp-fcc")
>>> train, test = rhosight.split(dataset)
>>> encoder = ImageTextEncoder().fit(dataset[train])
>>> encoder.retrieval(dataset[test])
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from ..dataset.dataset import Dataset
from ..errors import RhosightError
from ..inputs.progress import AnyProgress, EpochProgress
from ..networks.backbones import save_backbone_configs
from ..networks.dual_encoder import AnyDualEncoder
from ..networks.flat import nest_fields
from ..networks.modules import build_encoder
from ..networks.presets import network_recipe
from ..networks.recipe import Recipe
from ..networks.settings import validate_settings
from ..storage import open_run
from ..training.contrastive import (
    Pairs,
    compute_embeddings,
    load_weights,
    pretrain_encoder,
    read_pretrained_ids,
    read_pretraining,
    score_retrieval,
)
from ..training.folds import inner_split
from ..version import __version__
from .folder import new_folder
from .inputs import make_inputs
from .provenance import collect_versions, hash_weights, require_unseen


class ImageTextEncoder:
    """Maps density images and descriptions of crystals to one space (a CLIP).

    Parameters
    ----------
    recipe
        Settings; ``clip-offline`` if not given. Its groups ``image``, ``text``, ``augmentation``
        and ``pretraining``, its ``clip`` and its ``seed`` are used; those of regression are not.
    **changes
        Fields of the recipe to change, as :meth:`rhosight.Recipe.replace` takes them, e.g.
        ``text={"extent": "all"}``.

    Attributes
    ----------
    encoder
        The network (after ``fit``).
    history
        Losses of each epoch (after ``fit``).
    scores
        Last result of ``retrieval``; saved with the encoder.
    """

    def __init__(self, recipe: Recipe | None = None, **changes: Any):
        recipe = recipe or network_recipe("clip-offline")
        self.recipe = recipe.replace(**{**changes, "modality": "clip"})
        self.encoder: AnyDualEncoder | None = None
        self.history: list[dict[str, float]] = []
        self.scores: pd.DataFrame | None = None
        self._about: dict[str, Any] = {}

    def fit(
        self,
        dataset: Dataset,
        run_dir: str | os.PathLike | None = None,
        progress: EpochProgress | None = None,
    ) -> ImageTextEncoder:
        """Pre-train on all materials of a dataset. Labels are ignored.

        Parameters
        ----------
        dataset
            The training set. An inner split of it, by formula, is watched for early stopping.
        run_dir
            Folder for checkpoints; the same call with the same folder resumes an interrupted one.
        progress
            Called with (label, step, steps, watched loss).

        Raises
        ------
        RhosightError
            If a material lacks data that the recipe reads, or the recipe has no epochs of
            pre-training.
        """
        recipe = self.recipe
        if not recipe.pretraining.epochs:
            raise RhosightError(
                "recipe: pretraining.epochs is 0: nothing would be learned; raise it"
            )
        settings = {
            "task": "pretrain",
            "recipe": recipe.flat(),
            "weights": hash_weights(recipe.weight_sources),
            "dataset_sha256": dataset.fingerprint(),
            "versions": collect_versions(),
        }
        folder = open_run(run_dir, settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            encoder = build_encoder(recipe)
        if recipe.pretraining.weights:
            load_weights(encoder, recipe)
        inputs = make_inputs(dataset, recipe, encoder.reader, progress)
        formulas = dataset.table["formula"].to_list()
        pairs = Pairs(inputs, formulas, *inner_split(dataset, recipe))
        run = folder / "pre-training" if folder else None
        self.history = pretrain_encoder(encoder, pairs, recipe, run, progress)
        self.encoder = encoder.eval()
        self._about = {
            "dataset": dataset.metadata.get("name", ""),
            "dataset_sha256": settings["dataset_sha256"],
            "licence": dataset.metadata.get("licence", ""),
            "attribution": dataset.metadata.get("attribution", ""),
            "pretrained_ids": sorted(
                {*dataset.ids, *read_pretrained_ids(recipe.pretrained_folder)}
            ),
            "backbones": {part.name: part.weights for part in encoder.encoders},
            "versions": settings["versions"],
        }
        return self

    def embed(
        self, dataset: Dataset, progress: AnyProgress | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return unit vectors of the images and of the texts, (materials, width) each.

        The cosine similarity of two vectors is their scalar product.
        """
        if self.encoder is None:
            raise RhosightError("this encoder is not fitted; call fit, or from_pretrained")
        inputs = make_inputs(dataset, self.recipe, self.encoder.reader, progress)
        return compute_embeddings(self.encoder, inputs, views=self.recipe.views)

    def retrieval(self, dataset: Dataset, progress: AnyProgress | None = None) -> pd.DataFrame:
        """Score zero-shot retrieval among a dataset's materials, with the chance level.

        See :func:`rhosight.training.contrastive.score_retrieval` for the table.

        Raises
        ------
        RhosightError
            If a material was used in pre-training: its score would be meaningless.
        """
        require_unseen(
            dataset,
            self._about.get("pretrained_ids", ()),
            "were used in pre-training",
            "score other materials",
        )
        image, text = self.embed(dataset, progress)
        self.scores = score_retrieval(image, text, dataset.table["formula"].to_list())
        return self.scores

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Save weights (safetensors), JSON config, tokenizer and model card to a folder.

        The folder is written completely or not at all; an encoder that is already in it is
        replaced.
        """
        if self.encoder is None:
            raise RhosightError("nothing to save: the encoder is not fitted")
        with new_folder(Path(folder)) as draft:
            weights = self.encoder.state_dict()
            save_file(
                {key: value.detach().cpu().contiguous() for key, value in weights.items()},
                draft / "model.safetensors",
                metadata={"format": "pt"},
            )
            scores = {} if self.scores is None else self.scores.to_dict("index")
            config = {
                "recipe": self.recipe.flat(),
                "retrieval": scores,
                "history": self.history,
                "about": self._about,
            }
            (draft / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False))
            (draft / "README.md").write_text(self._card())
            save_backbone_configs(self.encoder.encoders, draft)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> ImageTextEncoder:
        """Load an encoder that ``save_pretrained`` wrote.

        Raises
        ------
        RhosightError
            If the folder holds no such encoder.
        """
        path = Path(folder)
        config = read_pretraining(path)
        loaded = cls(validate_settings(Recipe, nest_fields(config["recipe"])))
        loaded._about, loaded.history = config["about"], config["history"]
        if config["retrieval"]:
            loaded.scores = pd.DataFrame(config["retrieval"]).T
        encoder = build_encoder(loaded.recipe, pretrained=False, saved=path)
        load_weights(encoder, loaded.recipe, path)
        loaded.encoder = encoder.eval()
        return loaded

    def _card(self) -> str:
        about = self._about
        backbones = "\n".join(f"- `{n}`, SHA-256 `{h}`" for n, h in about["backbones"].items())
        scores = "Not scored: no test set was held out.\n"
        if self.scores is not None:
            head = ["| | recall@1 | recall@5 | recall@10 | median rank |", "| --- " * 5 + "|"]
            rows = [
                f"| {name} | {row['recall@1']:.2f} | {row['recall@5']:.2f} | "
                f"{row['recall@10']:.2f} | {row['median_rank']:.1f} |"
                for name, row in self.scores.iterrows()
            ]
            count = int(self.scores["materials"].iloc[0])
            scores = "\n".join([f"Among {count} held-out materials:", "", *head, *rows, ""])
        return f"""---
library_name: rhosight
tags: [materials-science, charge-density, contrastive]
---

# Dual encoder of charge-density images and descriptions

Density {", ".join(self.recipe.image.settings.kinds)}; text {self.recipe.text.extent}.

Pre-trained without labels on {len(about["pretrained_ids"])} materials of
{about["dataset"] or "an unnamed dataset"} (SHA-256 `{about["dataset_sha256"]}`).
{about["attribution"]} {about["licence"]}

{scores}
Pre-trained encoders that it began with:

{backbones}

Made with rhosight {__version__}.
"""
