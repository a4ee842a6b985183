"""Features of pre-trained encoders as blocks beside the descriptors.

A Gaussian process compares blocks of numbers, wherever they come from. This module computes those
of a recipe's encoders, each layer of each image or text as one block, and keeps them on disk
(:mod:`rhosight.networks.feature_cache`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import load_file, save_file

from ..density.charge_density import ChargeDensity
from ..errors import RhosightError
from ..inputs.descriptors.blocks import prepare_density
from ..inputs.image import ImageSettings, turn_margin
from ..inputs.tensors import draw_images
from ..networks.backbones import ClipBackbone, ImageBackbone, TextBackbone, hash_state
from ..networks.feature_cache import FeatureCache
from ..networks.features import ImageReader, TextReader
from ..networks.weights import packaged_hash
from .gaussian_process.recipe import ENCODERS, DescriptorRecipe
from .inputs import collect_texts
from .materials import list_densities

VERSION = 1
"""Of the features; another number makes those on disk unused."""

ENCODER_WEIGHTS = "model.safetensors"
"""File in a saved model's ``image_backbone`` and ``text_backbone``."""


class EncoderBlocks:
    """Computes the blocks of a recipe's encoders.

    Parameters
    ----------
    recipe
        Its ``image``, ``text`` and ``clip``.
    saved
        Folder of a saved model; encoders that :meth:`save` wrote to it are used.
    weights
        Encoder → SHA-256 that its weights must have.

    Raises
    ------
    RhosightError
        If an encoder cannot be loaded, or has other weights.

    Attributes
    ----------
    image, text
        The readers of the encoders; None where the recipe has none.
    """

    def __init__(
        self,
        recipe: DescriptorRecipe,
        saved: Path | None = None,
        weights: Mapping[str, str] | None = None,
    ):
        names = {kind: getattr(recipe, kind).backbone for kind in ENCODERS if getattr(recipe, kind)}
        own = load_encoders(names, recipe.clip, saved)
        self.image = ImageReader(recipe.image, own["image"]) if recipe.image else None
        self.text = TextReader(recipe.text, own["text"]) if recipe.text else None
        self._cache = FeatureCache()
        for kind, digest in (weights or {}).items():
            if digest != self.weights.get(kind):
                raise RhosightError(
                    f"the model has learned from other weights of its {kind} encoder (SHA-256 "
                    f"{digest}) than are here ({self.weights.get(kind)}); load it with the version "
                    "of rhosight that is in its config.json"
                )

    @property
    def weights(self) -> dict[str, str]:
        """Return the SHA-256 of the weights of the image and the text encoder."""
        readers = {"image": self.image, "text": self.text}
        return {kind: reader.weights for kind, reader in readers.items() if reader}

    def save(self, folder: Path) -> None:
        """Write the encoders that do not come with the package to the folder of a model."""
        readers = [reader for reader in (self.image, self.text) if reader]
        encoders = {reader.encoder for reader in readers if not packaged_hash(reader.encoder.name)}
        for encoder in encoders:
            place = folder / f"{encoder.kind}_backbone"
            encoder.save_config(place)
            state = {key: value.contiguous() for key, value in encoder.model.state_dict().items()}
            save_file(state, place / ENCODER_WEIGHTS, metadata={"format": "pt"})

    def compute(self, part: Any) -> pd.DataFrame:
        """Return the columns ``block.feature`` of a few crystals, a dataset or a sequence."""
        blocks: dict[str, np.ndarray] = {}
        if self.image:
            crystals = list_densities(part)
            densities = [prepare_density(crystal, with_difference=True) for crystal in crystals]
            settings = self.image.settings.images
            for name, image in zip(name_images(settings), settings, strict=True):
                layers = self._read_images(self.image, densities, image)
                blocks |= {f"{name}-layer{n}": layer for n, layer in enumerate(layers, start=1)}
        if self.text:
            for extent in self.text.settings.extents:
                layers = self._read_texts(self.text, collect_texts(part, extent))
                blocks |= {
                    f"text-{extent}-layer{n}": layer for n, layer in enumerate(layers, start=1)
                }
        self._cache.tidy()
        return pd.DataFrame(
            np.hstack(list(blocks.values())),
            columns=[f"{b}.{n}" for b, layer in blocks.items() for n in range(layer.shape[1])],
        )

    def _read_images(
        self, reader: ImageReader, densities: Sequence[ChargeDensity], settings: ImageSettings
    ) -> list[np.ndarray]:
        """Return the features of one image of each density, by layer."""
        own = reader.settings
        drawing = settings.model_dump(mode="json")
        setup = [VERSION, drawing, own.turns, own.layers, own.statistics, reader.weights]
        keys = [_density_key(density, settings, setup) for density in densities]
        pad = turn_margin(settings.size) if own.turns > 1 else 0

        def draw(rows: list[int]) -> list[np.ndarray]:
            canvas = draw_images([densities[row] for row in rows], settings, margin=pad > 0)
            return reader.read(canvas, settings.size)

        return self._read(keys, draw)

    def _read_texts(self, reader: TextReader, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the features of texts, by layer."""
        own = reader.settings
        setup = [VERSION, own.max_tokens, own.layers, own.statistics, reader.weights]
        keys = [FeatureCache.key(setup, text) for text in texts]
        return self._read(keys, lambda rows: reader.read([texts[row] for row in rows]))

    def _read(self, keys: list[str], compute: Any) -> list[np.ndarray]:
        """Return features by layer, from disk or by ``compute`` for a list of rows."""
        known = [self._cache.get(key) for key in keys]
        if missing := [row for row, layers in enumerate(known) if layers is None]:
            computed = compute(missing)
            for number, row in enumerate(missing):
                own = [layer[number] for layer in computed]
                known[row] = own
                self._cache.put(keys[row], own)
        return [np.stack(layer) for layer in zip(*known, strict=True)]


def load_encoders(names: Mapping[str, str], clip: str | None, saved: Path | None) -> dict[str, Any]:
    """Return the image and the text encoder, those in a saved model's folder first.

    Parameters
    ----------
    names
        ``image`` and ``text`` → name of the encoder.
    clip
        A CLIP that stands for both.
    saved
        Folder of a saved model.
    """
    classes: dict[str, Any] = {"image": ImageBackbone, "text": TextBackbone}
    if clip:
        names, classes = dict.fromkeys(names, clip), dict.fromkeys(classes, ClipBackbone)
    encoders: dict[str, Any] = {}
    for kind, name in names.items():
        if clip and encoders:
            encoders[kind] = next(iter(encoders.values()))
            continue
        place = saved / f"{classes[kind].kind}_backbone" if saved else None
        if place and (place / ENCODER_WEIGHTS).is_file():
            encoder = classes[kind](str(place), pretrained=False)
            encoder.model.load_state_dict(load_file(place / ENCODER_WEIGHTS))
            encoder.name, encoder.weights = name, hash_state(encoder.model)
        else:
            encoder = classes[kind](name)
        encoders[kind] = encoder
    return encoders


def name_images(images: Sequence[ImageSettings]) -> list[str]:
    """Return the names of a recipe's images: ``image-`` and the kinds of density."""
    names: list[str] = []
    for settings in images:
        kinds = "-".join(dict.fromkeys(channel.kind for channel in settings.channels))
        count = sum(name.partition("~")[0] == f"image-{kinds}" for name in names)
        names.append(f"image-{kinds}" + (f"~{count + 1}" if count else ""))
    return names


def _density_key(density: ChargeDensity, settings: ImageSettings, setup: list[Any]) -> str:
    """Return the key of a density's features: its grids and its crystal."""
    structure = density.structure
    kinds: Any = settings.kinds
    return FeatureCache.key(
        setup,
        np.asarray(structure.lattice.matrix),
        np.asarray(structure.frac_coords),
        [str(site.species) for site in structure],
        *(np.asarray(density.grid(kind)) for kind in kinds),
    )
