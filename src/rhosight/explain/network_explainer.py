"""Explain predictions of networks that read images and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..dataset.dataset import Dataset
from ..dataset.packing import BUNDLED, load_dataset
from ..density.charge_density import ChargeDensity
from ..density.plane import LatticePlane, lattice_plane
from ..errors import RhosightError
from ..inputs.image import ImageSettings, apply_reference, density_slice, window_side
from ..inputs.tensors import Inputs
from ..models.inputs import collect_texts
from ..models.materials import list_crystals, list_densities, name_crystals
from ..models.property_model import PropertyModel
from .explanation import Explanation
from .maps import SliceMap
from .networks import PLAYERS, NetworkAttributions, square_grid
from .pieces import Pieces, name_values
from .shapley import describe_background, select_rows
from .words import count_words

REFERENCES = 32
"""Largest background of a network; each material costs a forward pass."""
PATCH = 8
"""Pixels along the side of a square of an image that deletion tests remove."""
NO_IMAGE = "this model does not read an image of the density, so there is no map"


class NetworkExplainer:
    """Explain the predictions of a network.

    Parameters
    ----------
    model
        A fitted model.
    background
        See :func:`rhosight.explain`.
    """

    def __init__(self, model: PropertyModel, background: Dataset | None):
        assert model.network is not None and model.scaler is not None, "the model is fitted"
        others, self.background = select_background(background, model.about)
        self.units, self.recipe = model.units, model.recipe
        self.targets = tuple(model.units)
        self.mean, self.std = model.scaler
        self._inputs = model.read
        self.parts = NetworkAttributions(model.network, self.recipe, model.read(others))

    def __call__(
        self, part: Dataset | Sequence[ChargeDensity], details: bool = True
    ) -> Explanation:
        """Explain one material; without ``details``, only by whole modalities."""
        inputs, text = self._read(part)
        list_materials = list_densities if self.recipe.uses_image else list_crystals
        crystal = list_materials(name_crystals(part))[0]
        base, shares = self.parts.shares(inputs)
        base, shares = base * self.std + self.mean, shares * self.std
        maps: tuple[SliceMap, ...] = ()
        words, starts, gaps = None, {}, {}
        if details and self.recipe.uses_image:
            values, start, gap = self.parts.pixels(inputs)
            values = values * self.std[:, None, None, None]
            maps = make_slice_maps(
                values, inputs, crystal, self.recipe.image.settings, self.targets
            )
            starts["maps"], gaps["maps"] = self._name(start, self.mean), self._name(gap)
        if details and self.recipe.uses_text:
            names, values, start, gap = self.parts.words(inputs, text)
            table = (values * self.std[:, None]).T
            words = pd.DataFrame(table, pd.Index(names, name="word"), list(self.targets))
            words.insert(0, "count", list(count_words(text).values()))
            starts["words"], gaps["words"] = self._name(start, self.mean), self._name(gap)
        modalities = pd.Index(self.parts.modalities, name="modality")
        return Explanation(
            name=crystal.name,
            formula=crystal.structure.composition.reduced_formula,
            targets=self.targets,
            units=self.units,
            prediction=name_values(self.targets, base + shares.sum(axis=0)),
            base=name_values(self.targets, base),
            background=self.background,
            modalities=pd.DataFrame(shares, modalities, list(self.targets)),
            players={name: PLAYERS[name] for name in modalities},
            maps=maps,
            words=words,
            starts=starts,
            gaps=gaps,
            notes=() if self.recipe.uses_image else (NO_IMAGE,),
        )

    def pieces(self, part: Dataset | Sequence[ChargeDensity], modality: str) -> Pieces:
        """Return the patches of the slices (``image``) or the words (``text``)."""
        inputs, text = self._read(part)
        if modality == "text":
            values = self.parts.words(inputs, text)[1]
            return Pieces(
                values, lambda missing: self.parts.predict_without_words(inputs, text, missing)
            )
        values = self.parts.pixels(inputs)[0]
        patch = square_grid(values.shape[-1], PATCH).numpy()
        count = int(patch.max()) + 1
        sums = np.zeros((len(values), 3, count))
        for number in range(count):
            sums[..., number] = values[..., patch == number].sum(axis=-1)

        def predict(missing: np.ndarray) -> np.ndarray:
            pixels = missing.reshape(len(missing), 3, count)[..., patch]
            return self.parts.predict_without_pixels(inputs, torch.from_numpy(pixels))

        return Pieces(sums.reshape(len(values), -1), predict)

    def _read(self, part: Dataset | Sequence[ChargeDensity]) -> tuple[Inputs, str]:
        text = collect_texts(part, self.recipe.text.extent)[0] if self.recipe.uses_text else ""
        return self._inputs(part, [text]), text

    def _name(self, values: np.ndarray, shift: np.ndarray | float = 0.0) -> dict[str, float]:
        return name_values(self.targets, values * self.std + shift)


def select_background(background: Dataset | None, about: Mapping[str, Any]) -> tuple[Dataset, str]:
    """Return the background materials of a network and a sentence that describes them.

    Parameters
    ----------
    background
        Materials given by the user, if any.
    about
        Metadata of the model. Its training materials are the default if they are bundled with the
        package.

    Raises
    ------
    RhosightError
        If the background is empty, or none is given and the training materials are not bundled.
    """
    what = "given" if background is not None else "training"
    background = _training_materials(about) if background is None else background
    count = len(background)
    if not count:
        raise RhosightError("the background is empty; give a dataset with at least one material")
    rows = select_rows(count, REFERENCES)
    return background[rows], describe_background(len(rows), count, what)


def _training_materials(about: Mapping[str, Any]) -> Dataset:
    """Return the training materials of a model from the bundled dataset of that name."""
    ids, name = list(about.get("training_ids", ())), about.get("dataset", "")
    if name in BUNDLED:
        dataset = load_dataset(name)
        if ids and set(ids) <= set(dataset.ids):
            return dataset[ids]
    raise RhosightError(
        f"the training materials of this model ({name or 'unnamed dataset'}) are not bundled with "
        "rhosight; choose a background with background=dataset or --background FILE"
    )


def make_slice_maps(
    values: np.ndarray,
    inputs: Inputs,
    density: ChargeDensity,
    settings: ImageSettings,
    targets: Sequence[str],
) -> tuple[SliceMap, ...]:
    """Return maps of the slices of an image from the attributions of its pixels.

    ``values`` has the shape (targets, 3, s, s), in the targets' units per pixel.
    """
    density = apply_reference(density, settings)
    side = values.shape[-1]
    pad = (side - settings.size) // 2
    if settings.colour != "channels":  # three layers of one slice
        values = values.sum(axis=1, keepdims=True)
    planes: dict[Any, LatticePlane] = {}
    maps = []
    for number, channel in enumerate(settings.channels):
        if channel.hkl not in planes:
            planes[channel.hkl] = lattice_plane(density.structure, channel.hkl, settings.symprec)
        plane = planes[channel.hkl]
        if settings.fourier:
            assert inputs.canvas is not None, "the network reads images"
            seen = inputs.canvas[0, number].float().numpy()
            pixel = 1 / window_side(channel, plane)
        else:
            seen = density_slice(
                density, channel, settings.size, settings.interpolation, plane=plane, pad=pad
            )
            pixel = window_side(channel, plane) / settings.size
        per_area = values[:, number] / pixel**2
        maps.append(
            SliceMap(
                channel=channel,
                density=seen,
                values=dict(zip(targets, per_area, strict=True)),
                half=side * pixel / 2,
                plane=plane,
                structure=density.structure,
                fourier=settings.fourier,
            )
        )
    return tuple(maps)
