"""Features of pre-trained encoders as blocks beside the descriptors.

A Gaussian process compares blocks of numbers, wherever they come from. This module computes those
of a recipe's encoders, each layer of each image or text as one block, and keeps them on disk
(:mod:`rhosight.networks.feature_cache`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file

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

TUNED_WEIGHTS = "tuned.safetensors"
"""File beside it with the tensors that fine-tuning has changed, if it was kept."""


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
    tuned
        ``image`` or ``text`` → reader of the fine-tuned encoder, which reads the first image or
        text instead.
    """

    def __init__(
        self,
        recipe: DescriptorRecipe,
        saved: Path | None = None,
        weights: Mapping[str, str] | None = None,
    ):
        readers = make_readers(recipe, saved)
        self.image, self.text = readers.get("image"), readers.get("text")
        self._tuned_files = _read_tuned(saved)
        self.tuned = make_readers(recipe, saved, self._tuned_files) if self._tuned_files else {}
        self._cache = FeatureCache()
        expected = weights or self.weights
        for kind in {*expected, *self.weights}:
            if (digest := expected.get(kind)) != self.weights.get(kind):
                raise RhosightError(
                    f"the model has learned from other weights of its {kind} encoder (SHA-256 "
                    f"{digest}) than are here ({self.weights.get(kind)}); load it with the version "
                    "of rhosight that is in its config.json"
                )

    @property
    def weights(self) -> dict[str, str]:
        """Return the SHA-256 of the weights of the image and the text encoder."""
        readers = {"image": self.image, "text": self.text}
        own = {kind: reader.weights for kind, reader in readers.items() if reader}
        return own | {f"tuned {kind}": reader.weights for kind, reader in self.tuned.items()}

    def save(self, folder: Path) -> None:
        """Write what does not come with the package to the folder of a model.

        These are other encoders, and the tensors that fine-tuning has changed.
        """
        for kind, data in self._tuned_files.items():
            write_tuned(folder, kind, data)
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
            for number, name in enumerate(name_images(settings)):
                reader = self.tuned.get("image", self.image) if number == 0 else self.image
                layers = self._read_images(reader, densities, settings[number])
                blocks |= {f"{name}-layer{n}": layer for n, layer in enumerate(layers, start=1)}
        if self.text:
            for number, extent in enumerate(self.text.settings.extents):
                taught = self.tuned.get("text", self.text) if number == 0 else self.text
                layers = self._read_texts(taught, collect_texts(part, extent))
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


def make_readers(
    recipe: DescriptorRecipe, saved: Path | None, tuned: Mapping[str, bytes] | None = None
) -> dict[str, Any]:
    """Return the readers of a recipe's encoders, or of those that are fine-tuned.

    Parameters
    ----------
    recipe
        Its ``image``, ``text`` and ``clip``.
    saved
        Folder of a saved model.
    tuned
        ``image`` or ``text`` → safetensors that replace tensors of this encoder.

    Raises
    ------
    RhosightError
        If the tensors are not those of the encoder.
    """
    kinds = [kind for kind in ENCODERS if getattr(recipe, kind)]
    kinds = [kind for kind in kinds if tuned is None or kind in tuned]
    names = {kind: getattr(recipe, kind).backbone for kind in kinds}
    own = load_encoders(names, recipe.clip, saved)
    classes: dict[str, Any] = {"image": ImageReader, "text": TextReader}
    readers = {kind: classes[kind](getattr(recipe, kind), own[kind]) for kind in kinds}
    for kind, data in [(kind, tuned[kind]) for kind in kinds] if tuned else ():
        model = readers[kind].encoder.model
        try:
            tensors = load(data)
        except SafetensorError:
            tensors = None
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        if tensors is None or any(t.shape != shapes.get(name) for name, t in tensors.items()):
            raise RhosightError(
                f"the fine-tuned tensors are not those of the {kind} encoder {names[kind]}; the "
                "model's folder is damaged: train or download it again"
            )
        model.load_state_dict(tensors, strict=False)
        readers[kind].weights += f" and {hashlib.sha256(data).hexdigest()}"
    return readers


def write_tuned(folder: Path, kind: str, data: bytes) -> None:
    """Write the tensors that fine-tuning has changed to the folder of a model."""
    place = folder / f"{kind}_backbone"
    place.mkdir(parents=True, exist_ok=True)
    (place / TUNED_WEIGHTS).write_bytes(data)


def _read_tuned(saved: Path | None) -> dict[str, bytes]:
    """Return the tensors of a saved model that fine-tuning has changed, by encoder."""
    files = {kind: saved / f"{kind}_backbone" / TUNED_WEIGHTS for kind in ENCODERS if saved}
    return {kind: file.read_bytes() for kind, file in files.items() if file.is_file()}


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
