"""Explain predictions of Gaussian processes over descriptors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Structure

from ..dataset.dataset import Dataset
from ..models.descriptor_model import DescriptorModel
from .explanation import Explanation
from .pieces import Pieces, name_values
from .processes import GROUPS, ProcessAttributions, describe_missing_map
from .shapley import describe_background
from .threads import one_thread


class ProcessExplainer:
    """Explain the predictions of a descriptor model.

    Parameters
    ----------
    model
        The fitted model.
    background
        Materials that predictions are compared with; None for the training set.
    """

    def __init__(self, model: DescriptorModel, background: Dataset | None = None):
        process, others = model.process, None
        if background is not None:
            others = model.to_blocks(model.reader.table(background))
        with one_thread():
            self.parts = ProcessAttributions(process, others, model.scales)
        self.units, self.targets = model.units, model.targets
        mean, std = (values[None] for values in process.label_scales())
        self.mean = model.scales.restore(mean)[0]
        self.std = model.scales.restore_std(mean, std)[0]
        what = "training" if background is None else "given"
        self.background = describe_background(len(self.parts), self.parts.available, what)
        self._model = model

    @one_thread()
    def __call__(self, part: Any, details: bool = True) -> Explanation:
        """Explain one material; without ``details``, only by whole modalities."""
        return self.explain(*self._model.read_one(part), details)

    @one_thread()
    def explain(
        self, name: str, structure: Structure, table: pd.DataFrame, details: bool = True
    ) -> Explanation:
        """Explain a material whose descriptors are known, a table of one row."""
        blocks = self._model.to_blocks(table)
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
        blocks = self._model.to_blocks(self._model.read_one(part)[2])
        features = self.parts.features(blocks)
        table = self.parts.descriptors(blocks, self.std)[0].drop(columns="value")

        @one_thread()
        def predict(missing: np.ndarray) -> np.ndarray:
            mixed = np.where(missing, self.parts.centre, features)
            with torch.no_grad():
                return (self.parts.predict(torch.from_numpy(mixed)).numpy() - self.mean) / self.std

        return Pieces(table.to_numpy().T / self.std[:, None], predict)
