"""From numbers to explanations: what the two kinds of model have to tell of one material."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from ..dataset import BUNDLED, Dataset, load_dataset
from ..density import ChargeDensity
from ..errors import RhosightError
from ..image import Channel, ImageSettings, density_slice, referred, window_side
from ..inputs import Inputs
from ..plane import LatticePlane, lattice_plane
from .explanation import Explanation, SliceMap
from .networks import PLAYERS, NetworkExplainer
from .processes import GROUPS, NO_MAP, ProcessExplainer
from .words import word_counts

REFERENCES = 32
"""Materials of a network's background: each costs a pass through the network."""


@dataclass(frozen=True)
class Predicted:
    """What is predicted, and what it is compared with.

    Attributes
    ----------
    units
        Target → unit, in the order of the targets.
    mean, std
        Of each target over the training part, in these units: what outputs are standardised by.
    background
        A sentence for :attr:`.Explanation.background`.
    """

    units: dict[str, str]
    mean: np.ndarray
    std: np.ndarray
    background: str

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.units)

    def named(self, values: np.ndarray) -> dict[str, float]:
        """Target → value."""
        return {name: float(value) for name, value in zip(self.units, values, strict=True)}


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
    what = "given materials" if background is not None else "training materials"
    background = _training_materials(about) if background is None else background
    count = len(background)
    if not count:
        raise RhosightError("the background holds no material; give one with at least one")
    if count <= REFERENCES:
        return background, f"mean over {count} {what}"
    rows = np.random.default_rng(0).choice(count, REFERENCES, replace=False)
    return background[np.sort(rows)], f"mean over {REFERENCES} of the {count} {what}"


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


def explain_by_network(
    explainer: NetworkExplainer,
    inputs: Inputs,
    density: ChargeDensity,
    text: str,
    predicted: Predicted,
    details: bool,
) -> Explanation:
    """One material by a network.

    Parameters
    ----------
    explainer
        Of the network and its background.
    inputs, density, text
        Of the material; the text is empty if the network reads none.
    predicted
        Targets and their scale.
    details
        Whether to look into image and text.
    """
    targets, std = predicted.targets, predicted.std
    base, shares = explainer.shares(inputs)
    base, shares = base * std + predicted.mean, shares * std
    maps: tuple[SliceMap, ...] = ()
    words, notes, starts, gaps = None, [], {}, {}
    if details and "image" in explainer.modalities:
        values, start, gap = explainer.pixels(inputs)
        settings = explainer.recipe.image
        maps = slice_maps(values * std[:, None, None, None], inputs, density, settings, targets)
        starts["maps"] = predicted.named(start * std + predicted.mean)
        gaps["maps"] = predicted.named(gap * std)
    elif details:
        notes.append("this model reads no image, so there is no map of the density")
    if details and "text" in explainer.modalities:
        names, values, start, gap = explainer.words(inputs, text)
        words = pd.DataFrame((values * std[:, None]).T, names, list(targets)).rename_axis("word")
        words.insert(0, "count", list(word_counts(text).values()))
        starts["words"] = predicted.named(start * std + predicted.mean)
        gaps["words"] = predicted.named(gap * std)
    modalities = pd.DataFrame(shares, list(explainer.modalities), list(targets))
    return Explanation(
        name=density.name,
        formula=density.structure.composition.reduced_formula,
        targets=targets,
        units=predicted.units,
        prediction=predicted.named(base + shares.sum(axis=0)),
        base=predicted.named(base),
        background=predicted.background,
        modalities=modalities.rename_axis("modality"),
        players={name: PLAYERS[name] for name in explainer.modalities},
        maps=maps,
        words=words,
        starts=starts,
        gaps=gaps,
        notes=tuple(notes),
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


def explain_by_process(
    explainer: ProcessExplainer,
    blocks: Mapping[str, pd.DataFrame],
    structure: Structure,
    name: str,
    predicted: Predicted,
    details: bool,
) -> Explanation:
    """One material by a descriptor model.

    Parameters
    ----------
    explainer
        Of the Gaussian processes and their background.
    blocks, structure, name
        Of the material; one row in each block.
    predicted
        Targets and their scale.
    details
        Whether to look into the descriptors.
    """
    targets = predicted.targets
    base, shares = explainer.shares(blocks)
    descriptors, starts, gaps = None, {}, {}
    if details:
        descriptors, start, gap = explainer.descriptors(blocks, predicted.std)
        descriptors = descriptors.rename(columns=dict(enumerate(targets)))
        starts["descriptors"], gaps["descriptors"] = predicted.named(start), predicted.named(gap)
    modalities = pd.DataFrame(shares, list(explainer.groups), list(targets))
    return Explanation(
        name=name,
        formula=structure.composition.reduced_formula,
        targets=targets,
        units=predicted.units,
        prediction=predicted.named(base + shares.sum(axis=0)),
        base=predicted.named(base),
        background=predicted.background,
        modalities=modalities.rename_axis("modality"),
        players={name: GROUPS[name][1] for name in explainer.groups},
        descriptors=descriptors,
        starts=starts,
        gaps=gaps,
        notes=(NO_MAP,),
    )
