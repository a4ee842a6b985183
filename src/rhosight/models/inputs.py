"""Prepare what a network reads from materials."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Structure
from torch import Tensor

from ..dataset.dataset import Dataset
from ..density.crystals import as_structure
from ..inputs.descriptors.blocks import SPARSE, compute_block_table, needs_density, to_blocks
from ..inputs.descriptors.composition import prototype_label
from ..inputs.image import turn_margin
from ..inputs.progress import AnyProgress
from ..inputs.tensors import Inputs, draw_images
from ..inputs.text.description import describe, truncated_fraction
from ..inputs.text.extents import Extent
from ..inputs.text.rewording import reword
from ..networks.backbones import TextReader, Tokenizer
from ..networks.recipe import Recipe
from .materials import Densities, list_crystals, list_densities

logger = logging.getLogger(__name__)


def make_inputs(
    materials: Densities,
    recipe: Recipe,
    reader: TextReader | None = None,
    progress: AnyProgress | None = None,
    texts: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float16,
    prototypes: Sequence[str] = (),
) -> Inputs:
    """Return the images, tokens and descriptors that a recipe's network reads.

    Parameters
    ----------
    materials
        A dataset, or charge densities.
    recipe
        The settings.
    reader
        Encoder that tokenises; by default the tokenizer that the recipe names.
    progress
        Called with (label, done, all).
    texts
        Descriptions of the materials, if they exist already.
    dtype
        Type of the images.
    prototypes
        Structure types of the training set, see :func:`find_prototypes`.

    Raises
    ------
    RhosightError
        If a material lacks a kind of density or a text.
    """
    canvas = parallel = ids = mask = descriptors = linear = None
    if recipe.uses_image:
        canvas, parallel = _draw(materials, recipe, dtype, progress)
    if recipe.uses_text:
        texts = texts or collect_texts(materials, recipe.text.extent)
        ids, mask = _tokenize(texts, recipe, reader)
    if recipe.descriptors:
        descriptors, linear = _describe_numbers(materials, recipe, prototypes, progress)
    return Inputs(
        canvas,
        recipe.image.settings.size,
        ids,
        mask,
        parallel=parallel,
        shift=recipe.augmentation.shift * recipe.image.settings.size,
        steps=recipe.image.settings.steps,
        descriptors=descriptors,
        linear=linear,
    )


def _draw(
    materials: Densities, recipe: Recipe, dtype: torch.dtype, progress: AnyProgress | None
) -> tuple[Tensor, Tensor | None]:
    """Return the images, stored or drawn, and those of parallel planes if any."""
    settings, augmentation = recipe.image.settings, recipe.augmentation
    draw = partial(
        draw_images,
        list_densities(materials),
        margin=augmentation.enabled,
        progress=progress,
        dtype=dtype,
        shift=augmentation.shift,
    )
    stored = None
    if isinstance(materials, Dataset):
        pad = turn_margin(settings.size, augmentation.shift) if augmentation.enabled else 0
        stored = materials.images(settings, pad)
    canvas = draw(settings) if stored is None else torch.from_numpy(np.array(stored))
    if not augmentation.parallel:
        return canvas, None
    planes = [draw(settings.shift_planes(distance)) for distance in augmentation.parallel]
    return canvas, torch.stack(planes)


def _tokenize(
    texts: Sequence[str], recipe: Recipe, reader: TextReader | None
) -> tuple[Tensor, Tensor]:
    """Return token ids and attention masks of all wordings, (wordings, n, longest)."""
    tokenizer = reader or _load_tokenizer(recipe)
    longest = min(recipe.text.max_tokens or tokenizer.max_tokens, tokenizer.max_tokens)
    wordings = [reword(text, number) for number in range(recipe.views) for text in texts]
    ids, mask = (
        part.reshape(recipe.views, len(texts), -1) for part in tokenizer.tokenize(wordings, longest)
    )
    cut = truncated_fraction(texts, tokenizer.tokenizer, longest)
    if cut or reader is None:
        logger.info(
            "texts (%s): %.1f %% are longer than the %d tokens that %s reads, and are cut",
            recipe.text.extent,
            100 * cut,
            longest,
            tokenizer.name,
        )
    return ids, mask


def _describe_numbers(
    materials: Densities, recipe: Recipe, prototypes: Sequence[str], progress: AnyProgress | None
) -> tuple[Tensor, Tensor]:
    """Return descriptors (n, columns) and a mask of columns without long tails."""
    read = list_densities if needs_density(recipe.descriptors) else list_crystals
    crystals = read(materials)
    table = to_blocks(compute_block_table(crystals, recipe.descriptors, progress), prototypes)
    parts = {name: table[name].to_numpy(dtype=np.float32) for name in recipe.descriptors}
    descriptors = torch.from_numpy(np.hstack(list(parts.values())))
    return descriptors, torch.tensor([n in SPARSE for n, part in parts.items() for _ in part.T])


def inputs_key(recipe: Recipe) -> str:
    """Return a key of the settings of :func:`make_inputs`: same key, same inputs."""
    names = ["modality", "augment", "views", "descriptors"]
    if recipe.uses_image:
        names += ["image", "shift", "parallel"]
    if recipe.uses_text:
        names += ["extent", "text_backbone", "clip", "max_tokens"]
    flat = recipe.flat()
    return json.dumps({name: flat[name] for name in names}, sort_keys=True)


def find_prototypes(dataset: Dataset, recipe: Recipe) -> list[str]:
    """Return a training set's sorted structure types, if the descriptors use them."""
    if "prototype" not in recipe.descriptors:
        return []
    return sorted({prototype_label(structure) for structure in dataset.structures})


def _load_tokenizer(recipe: Recipe) -> Tokenizer:
    """Return the tokenizer of a recipe's text encoder, without loading the encoder."""
    if recipe.modality == "clip" and recipe.clip:
        return Tokenizer(recipe.clip, clip=True)
    return Tokenizer(recipe.text.backbone)


def collect_texts(materials: Densities | Sequence[Structure], extent: Extent) -> list[str]:
    """Return the stored descriptions of materials, and new ones where none are stored."""
    if isinstance(materials, Dataset):
        stored = materials.texts.get(extent, pd.Series(None, index=materials.ids, dtype=object))
        return [
            text if isinstance(text, str) else describe(structure, extent, name)
            for text, structure, name in zip(
                stored, materials.structures, materials.ids, strict=True
            )
        ]
    return [describe(as_structure(one), extent, getattr(one, "name", "")) for one in materials]
