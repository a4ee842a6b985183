"""From numbers to explanations: what the two kinds of model have to tell of one material."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Structure

from ..dataset.dataset import Dataset
from ..dataset.packing import BUNDLED, load_dataset
from ..density.charge_density import ChargeDensity
from ..density.plane import LatticePlane, lattice_plane
from ..errors import RhosightError
from ..inputs.image import Channel, ImageSettings, density_slice, referred, window_side
from ..inputs.tensors import Inputs
from ..models.base import SavedModel
from ..models.descriptor_model import DescriptorModel, crystals_of
from ..models.gaussian_process.committee import Committee
from ..models.inputs import texts_of
from ..models.property_model import PropertyModel
from .explanation import Explanation
from .maps import SliceMap
from .networks import PLAYERS, NetworkExplainer, squares
from .processes import GROUPS, ProcessExplainer, no_map
from .shapley import background_sentence, chosen
from .threads import one_thread
from .words import word_counts

REFERENCES = 32
"""Materials of a network's background: each costs a pass through the network."""

PATCH = 8
"""Pixels along a side of the squares that are taken from an image together."""

NO_IMAGE = "this model reads no image of the density, so there is no map"


class Explains(Protocol):
    """Explains materials one at a time, given as ``predict`` takes several."""

    targets: tuple[str, ...]

    def __call__(self, part: Any, details: bool = True) -> Explanation:
        """The explanation; without ``details``, what each modality adds as a whole."""

    def pieces(self, part: Any, modality: str) -> Pieces:
        """What can be taken from a modality of the material's input."""


@dataclass(frozen=True)
class Pieces:
    """The pieces of a material's input, and what is predicted when some are missing.

    Attributes
    ----------
    attributions
        Shape (targets, pieces), in units of each target's standard deviation.
    predict
        Which pieces are missing, in each of m variants, shape (m, pieces) → predictions, shape
        (m, targets), in the same units.
    """

    attributions: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray]


class NetworkExplains:
    """Explains predictions of a network.

    Parameters
    ----------
    model
        Fitted.
    scaler
        Mean and standard deviation of its targets.
    background
        See :func:`rhosight.explain`.
    """

    def __init__(
        self,
        model: PropertyModel,
        scaler: tuple[np.ndarray, np.ndarray],
        background: Dataset | None,
    ):
        others, self.background = network_background(background, model.about)
        self.units, self.recipe = model.units, model.recipe
        self.targets = tuple(model.units)
        self.mean, self.std = scaler
        self._inputs = model.read
        self.parts = NetworkExplainer(model.network, self.recipe, model.read(others))

    def __call__(
        self, part: Dataset | Sequence[ChargeDensity], details: bool = True
    ) -> Explanation:
        inputs, text = self._read(part)
        density = getattr(part, "densities", part)[0]
        base, shares = self.parts.shares(inputs)
        base, shares = base * self.std + self.mean, shares * self.std
        maps: tuple[SliceMap, ...] = ()
        words, starts, gaps = None, {}, {}
        if details and self.recipe.uses_image:
            values, start, gap = self.parts.pixels(inputs)
            values = values * self.std[:, None, None, None]
            maps = slice_maps(values, inputs, density, self.recipe.image.settings, self.targets)
            starts["maps"], gaps["maps"] = self._named(start, self.mean), self._named(gap)
        if details and self.recipe.uses_text:
            names, values, start, gap = self.parts.words(inputs, text)
            table = (values * self.std[:, None]).T
            words = pd.DataFrame(table, pd.Index(names, name="word"), list(self.targets))
            words.insert(0, "count", list(word_counts(text).values()))
            starts["words"], gaps["words"] = self._named(start, self.mean), self._named(gap)
        modalities = pd.Index(self.parts.modalities, name="modality")
        return Explanation(
            name=density.name,
            formula=density.structure.composition.reduced_formula,
            targets=self.targets,
            units=self.units,
            prediction=named(self.targets, base + shares.sum(axis=0)),
            base=named(self.targets, base),
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
        """Patches of the slices (``image``) or words (``text``)."""
        inputs, text = self._read(part)
        if modality == "text":
            values = self.parts.words(inputs, text)[1]
            return Pieces(values, lambda gone: self.parts.predict_without(inputs, text, gone))
        values = self.parts.pixels(inputs)[0]
        patch = squares(values.shape[-1], PATCH).numpy()
        count = int(patch.max()) + 1
        sums = np.zeros((len(values), 3, count))
        for number in range(count):
            sums[..., number] = values[..., patch == number].sum(axis=-1)

        def predict(gone: np.ndarray) -> np.ndarray:
            missing = torch.from_numpy(gone.reshape(len(gone), 3, count)[..., patch])
            return self.parts.predict_images_without(inputs, missing)

        return Pieces(sums.reshape(len(values), -1), predict)

    def _read(self, part: Dataset | Sequence[ChargeDensity]) -> tuple[Inputs, str]:
        text = texts_of(part, self.recipe.text.extent)[0] if self.recipe.uses_text else ""
        return self._inputs(part, [text]), text

    def _named(self, values: np.ndarray, shift: np.ndarray | float = 0.0) -> dict[str, float]:
        return named(self.targets, values * self.std + shift)


class ProcessExplains:
    """Explains predictions of a descriptor model.

    Parameters
    ----------
    process
        Fitted.
    read
        A material, as the model's ``predict`` takes several → its name, structure and blocks.
    units
        Target → unit.
    background
        Blocks of the materials to compare with; None: those of the training part.
    """

    def __init__(
        self,
        process: Committee,
        read: Callable[[Any], tuple[str, Structure, Mapping[str, pd.DataFrame]]],
        units: dict[str, str],
        background: Mapping[str, pd.DataFrame] | None,
    ):
        with one_thread():
            self.parts = ProcessExplainer(process, background)
        self.units, self.targets = units, tuple(units)
        self.mean, self.std = process.label_scales()
        what = "training" if background is None else "given"
        self.background = background_sentence(len(self.parts), self.parts.available, what)
        self._read = read

    @one_thread()
    def __call__(self, part: Any, details: bool = True) -> Explanation:
        name, structure, blocks = self._read(part)
        base, shares = self.parts.shares(blocks)
        descriptors, starts, gaps = None, {}, {}
        if details:
            descriptors, start, gap = self.parts.descriptors(blocks, self.std)
            descriptors = descriptors.rename(columns=dict(enumerate(self.targets)))
            starts["descriptors"] = named(self.targets, start)
            gaps["descriptors"] = named(self.targets, gap)
        groups = pd.Index(self.parts.groups, name="modality")
        return Explanation(
            name=name,
            formula=structure.composition.reduced_formula,
            targets=self.targets,
            units=self.units,
            prediction=named(self.targets, base + shares.sum(axis=0)),
            base=named(self.targets, base),
            background=self.background,
            modalities=pd.DataFrame(shares, groups, list(self.targets)),
            players={name: GROUPS[name][1] for name in groups},
            descriptors=descriptors,
            starts=starts,
            gaps=gaps,
            notes=(no_map(blocks, details),),
        )

    @one_thread()
    def pieces(self, part: Any, modality: str = "descriptors") -> Pieces:
        """Descriptors, each by itself."""
        blocks = self._read(part)[2]
        features = self.parts.features(blocks)
        table = self.parts.descriptors(blocks, self.std)[0].drop(columns="value")

        @one_thread()
        def predict(gone: np.ndarray) -> np.ndarray:
            mixed = np.where(gone, self.parts.centre, features)
            with torch.no_grad():
                return (self.parts.predict(torch.from_numpy(mixed)).numpy() - self.mean) / self.std

        return Pieces(table.to_numpy().T / self.std[:, None], predict)


def make_explainer(model: SavedModel, background: Dataset | None = None) -> Explains:
    """Return the explainer of a fitted model.

    Raises
    ------
    RhosightError
        If this kind of model has none, or there is no background.
    """
    model.check_fitted()
    if isinstance(model, DescriptorModel):
        others = None if background is None else model.blocks_of(crystals_of(background))
        return ProcessExplains(model.process, model.read_one, model.units, others)
    if isinstance(model, PropertyModel):
        return NetworkExplains(model, model.scaler, background)
    raise RhosightError(
        "an ensemble is explained member by member: load the folder member-1 inside its own "
        "with load_model, or explain one of its `networks`"
    )


def named(targets: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Target → value."""
    return {name: float(value) for name, value in zip(targets, values, strict=True)}


def network_background(background: Dataset | None, about: Mapping[str, Any]) -> tuple[Dataset, str]:
    """Materials that a network's predictions are compared with, and a sentence that says which.

    Parameters
    ----------
    background
        As the user gave it.
    about
        Of the model: its training materials are the default, if they come with the package.

    Raises
    ------
    RhosightError
        If none is given and the training materials do not come with the package, or it is empty.
    """
    what = "given" if background is not None else "training"
    background = _training_materials(about) if background is None else background
    count = len(background)
    if not count:
        raise RhosightError("the background holds no material; give one with at least one")
    rows = chosen(count, REFERENCES)
    return background[rows], background_sentence(len(rows), count, what)


def _training_materials(about: Mapping[str, Any]) -> Dataset:
    ids, name = list(about.get("training_ids", ())), about.get("dataset", "")
    if name in BUNDLED:
        dataset = load_dataset(name)
        if ids and set(ids) <= set(dataset.ids):
            return dataset[ids]
    raise RhosightError(
        f"the materials that this model was trained on ({name or 'of no name'}) do not come with "
        "rhosight; say what to compare with: background=dataset, or --background FILE"
    )


def slice_maps(
    values: np.ndarray,
    inputs: Inputs,
    density: ChargeDensity,
    settings: ImageSettings,
    targets: Sequence[str],
) -> tuple[SliceMap, ...]:
    """Attributions to the pixels of one image as maps of the slices that it shows.

    ``values`` has the shape (targets, 3, s, s), in the targets' units per pixel.
    """
    density = referred(density, settings)
    side = values.shape[-1]
    pad = (side - settings.size) // 2
    if settings.colour != "channels":  # three layers of one slice
        values = values.sum(axis=1, keepdims=True)
    planes: dict[Any, LatticePlane] = {}
    found = []
    for number, channel in enumerate(settings.channels):
        if channel.hkl not in planes:
            planes[channel.hkl] = lattice_plane(density.structure, channel.hkl, settings.symprec)
        plane = planes[channel.hkl]
        if settings.fourier:
            seen = inputs.canvas[0, number].float().numpy()
            pixel = 1 / window_side(channel, plane)
        else:
            seen = _slice(density, channel, settings, plane, pad)
            pixel = window_side(channel, plane) / settings.size
        per_area = values[:, number] / pixel**2
        found.append(
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
    return tuple(found)


def _slice(
    density: ChargeDensity,
    channel: Channel,
    settings: ImageSettings,
    plane: LatticePlane,
    pad: int,
) -> np.ndarray:
    how = settings.interpolation
    return density_slice(density, channel, settings.size, how, plane=plane, pad=pad)
