"""Prepare what a network reads from materials."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..dataset.dataset import Dataset
from ..density.charge_density import ChargeDensity
from ..inputs.descriptors.blocks import SPARSE, block_table, to_blocks
from ..inputs.descriptors.composition import prototype_label
from ..inputs.image import turn_margin
from ..inputs.progress import AnyProgress
from ..inputs.tensors import Inputs, draw_images
from ..inputs.text.description import describe, truncated_fraction
from ..inputs.text.rewording import reword
from ..networks.backbones import ClipBackbone, TextBackbone
from ..networks.recipe import Recipe

logger = logging.getLogger(__name__)


def make_inputs(
    materials: Dataset | Sequence[ChargeDensity],
    recipe: Recipe,
    text_backbone: Any = None,
    progress: AnyProgress | None = None,
    texts: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float16,
    prototypes: Sequence[str] = (),
) -> Inputs:
    """The images, tokens and descriptors that a recipe reads of some materials; ``texts`` if
    already made. ``dtype`` is that of the images; ``prototypes`` as :func:`known_prototypes` gives
    them.
    """
    canvas = ids = mask = parallel = descriptors = linear = None
    densities = materials.densities if isinstance(materials, Dataset) else materials
    picture = recipe.image.settings
    if recipe.uses_image:
        stored = None
        if isinstance(materials, Dataset):
            turned = recipe.augmentation.enabled
            pad = turn_margin(picture.size, recipe.augmentation.shift) if turned else 0
            stored = materials.images(picture, pad)
        if stored is not None:
            canvas = torch.from_numpy(np.array(stored))
        draw = partial(
            draw_images,
            densities,
            margin=recipe.augmentation.enabled,
            progress=progress,
            dtype=dtype,
            shift=recipe.augmentation.shift,
        )
        if canvas is None:
            canvas = draw(picture)
        if recipe.augmentation.parallel:
            planes = [draw(picture.shift_planes(by)) for by in recipe.augmentation.parallel]
            parallel = torch.stack(planes)
    if recipe.uses_text:
        backbone = text_backbone or _reader(recipe)
        longest = min(recipe.text.max_tokens or backbone.max_tokens, backbone.max_tokens)
        texts = texts or texts_of(materials, recipe.text.extent)
        wordings = recipe.views
        said = [reword(text, number) for number in range(wordings) for text in texts]
        ids, mask = (
            part.reshape(wordings, len(texts), -1) for part in backbone.tokenize(said, longest)
        )
        cut = truncated_fraction(texts, backbone.tokenizer, longest)
        if cut or text_backbone is None:
            logger.info(
                "texts (%s): %.1f %% are longer than the %d tokens that %s reads, and cut",
                recipe.text.extent,
                100 * cut,
                longest,
                backbone.name,
            )
    if recipe.descriptors:
        table = to_blocks(block_table(densities, recipe.descriptors, progress), prototypes)
        parts = {name: table[name].to_numpy(dtype=np.float32) for name in recipe.descriptors}
        descriptors = torch.from_numpy(np.hstack(list(parts.values())))
        linear = torch.tensor([n in SPARSE for n, part in parts.items() for _ in part.T])
    return Inputs(
        canvas,
        picture.size,
        ids,
        mask,
        parallel=parallel,
        shift=recipe.augmentation.shift * picture.size,
        steps=picture.steps,
        descriptors=descriptors,
        linear=linear,
    )


def inputs_key(recipe: Recipe) -> str:
    """What :func:`make_inputs` asks a recipe for: with the same key, the same inputs."""
    names = ["modality", "augment", "views", "descriptors"]
    if recipe.uses_image:
        names += ["image", "shift", "parallel"]
    if recipe.uses_text:
        names += ["extent", "text_backbone", "clip", "max_tokens"]
    flat = recipe.flat()
    return json.dumps({name: flat[name] for name in names}, sort_keys=True)


def known_prototypes(dataset: Dataset, recipe: Recipe) -> list[str]:
    """Structure types of a training part, sorted, if the recipe's descriptors tell them apart."""
    if "prototype" not in recipe.descriptors:
        return []
    return sorted({prototype_label(structure) for structure in dataset.structures})


def _reader(recipe: Recipe) -> TextBackbone | ClipBackbone:
    """What tokenises the texts of a recipe."""
    if recipe.modality == "clip" and recipe.clip:
        return ClipBackbone(recipe.clip)
    return TextBackbone(recipe.text.backbone)


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
