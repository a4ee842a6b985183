"""Explain predictions of Gaussian processes over descriptors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Structure

from ..models.gaussian_process.committee import Committee
from .explanation import Explanation
from .pieces import Pieces, name_values
from .processes import GROUPS, ProcessAttributions, describe_missing_map
from .shapley import describe_background
from .threads import one_thread


class ProcessExplainer:
    """Explain the predictions of a descriptor model.

    Parameters
    ----------
    process
        A fitted committee.
    read
        A collection of one material → its name, structure and blocks.
    units
        Target → unit.
    background
        Blocks of the background materials; None for the training set.
    """

    def __init__(
        self,
        process: Committee,
        read: Callable[[Any], tuple[str, Structure, Mapping[str, pd.DataFrame]]],
        units: dict[str, str],
        background: Mapping[str, pd.DataFrame] | None,
    ):
        with one_thread():
            self.parts = ProcessAttributions(process, background)
        self.units, self.targets = units, tuple(units)
        self.mean, self.std = process.label_scales()
        what = "training" if background is None else "given"
        self.background = describe_background(len(self.parts), self.parts.available, what)
        self._read = read

    @one_thread()
    def __call__(self, part: Any, details: bool = True) -> Explanation:
        """Explain one material; without ``details``, only by whole modalities."""
        name, structure, blocks = self._read(part)
        base, shares = self.parts.shares(blocks)
        descriptors, starts, gaps = None, {}, {}
        if details:
            descriptors, start, gap = self.parts.descriptors(blocks, self.std)
            descriptors = descriptors.rename(columns=dict(enumerate(self.targets)))
            starts["descriptors"] = name_values(self.targets, start)
            gaps["descriptors"] = name_values(self.targets, gap)
        groups = pd.Index(self.parts.groups, name="modality")
        return Explanation(
            name=name,
            formula=structure.composition.reduced_formula,
            targets=self.targets,
            units=self.units,
            prediction=name_values(self.targets, base + shares.sum(axis=0)),
            base=name_values(self.targets, base),
            background=self.background,
            modalities=pd.DataFrame(shares, groups, list(self.targets)),
            players={name: GROUPS[name][1] for name in groups},
            descriptors=descriptors,
            starts=starts,
            gaps=gaps,
            notes=(describe_missing_map(blocks, details),),
        )

    @one_thread()
    def pieces(self, part: Any, modality: str = "descriptors") -> Pieces:
        """Return the single descriptors."""
        blocks = self._read(part)[2]
        features = self.parts.features(blocks)
        table = self.parts.descriptors(blocks, self.std)[0].drop(columns="value")

        @one_thread()
        def predict(missing: np.ndarray) -> np.ndarray:
            mixed = np.where(missing, self.parts.centre, features)
            with torch.no_grad():
                return (self.parts.predict(torch.from_numpy(mixed)).numpy() - self.mean) / self.std

        return Pieces(table.to_numpy().T / self.std[:, None], predict)
