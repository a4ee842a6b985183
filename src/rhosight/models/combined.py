"""CombinedModel: two models of descriptors as one, such as `best` and `no-dft`.

A general model, `structure` or `structure+potential`, knows crystals of all lattices. A special one
has learned from fewer crystals of other data, such as face-centred cubic crystals with their
densities. Where a crystal lies inside the special model's domain, the prediction is the mean of
both with weights 1 / variance (inverse-variance weighting); elsewhere it is that of the general
model alone. A variance is that of the model's calibrated interval: standard deviations of Gaussian
processes are too small by other factors in either model. The special model takes part in a target
only if that lowers the error on folds of its training set.

>>> model = CombinedModel(load_recipe("best")).fit(fcc)  # beside the bundled `structure`
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from pymatgen.core import Structure
from safetensors.numpy import load_file

from ..dataset.dataset import Dataset
from ..dataset.packing import BUNDLED, load_dataset
from ..dataset.splits import folds, group_labels
from ..errors import RhosightError
from ..inputs.progress import Progress
from .blocks import BlockReader
from .descriptor_card import describe_combination
from .descriptor_model import DescriptorModel, elements_of
from .descriptor_state import DescriptorState, Estimate
from .folder import BUNDLED_MODELS, GENERAL_MODEL, POTENTIAL_MODEL, WEIGHTS, bundled_folder
from .gaussian_process.recipe import DescriptorRecipe
from .provenance import require_unseen
from .uncertainty import ConformalIntervals

UNUSED_DENSITY = "unused_density"
"""Column that says why a density took no part in a prediction, or None."""

FEWEST = 30
"""Labels from which the two models can be compared for a target, and intervals calibrated."""

Pair = tuple[np.ndarray, np.ndarray]
"""Means, and half the widths of intervals, in the targets' units; both of shape (n, targets)."""


@cache
def load_general(name: str) -> DescriptorModel:
    """Load a bundled model that knows crystals of all lattices, once in a process."""
    return DescriptorModel.from_pretrained(bundled_folder(name))


class CombinedModel(DescriptorModel):
    """A special model of descriptors beside the bundled general one.

    Predictions, descriptors, neighbours and the training domain of the general model are those of
    this one, too; ``process`` and ``known_elements`` belong to it.

    Parameters
    ----------
    recipe
        Settings of the special model, which learns in ``fit``; ``best`` if not given.

    Attributes
    ----------
    general_name
        The general model: ``structure+potential`` if the recipe reads numbers of CHGNet, else
        ``structure``.
    special
        The special model.
    kept
        Targets in which the special model takes part.
    intervals
        Of the mean of both, for all targets of the special model.
    units, scores, about
        See :class:`rhosight.models.base.SavedModel`. ``about`` is that of the general model, with
        the facts about the other in ``about["special"]``.

    Raises
    ------
    RhosightError
        If the recipe reads encoders, or predicts what the general model does not.
    """

    kind: ClassVar[str] = "combined"

    def __init__(self, recipe: DescriptorRecipe | None = None):
        self.special = DescriptorModel(recipe)
        own = self.special.recipe
        self.general_name = POTENTIAL_MODEL if own.uses_potential else GENERAL_MODEL
        self.general = load_general(self.general_name)
        super().__init__(self.general.recipe)
        self.kept: tuple[str, ...] = ()
        self.intervals: ConformalIntervals | None = None
        if unknown := sorted(set(own.targets) - set(self.targets)):
            raise RhosightError(
                f"{unknown[0]}: the model {self.general_name} does not predict it; combine models "
                f"of {', '.join(self.targets)}"
            )
        if own.uses_encoders:
            raise RhosightError(
                f"{own.label}: models that read encoders cannot be combined with "
                f"{self.general_name}; choose another recipe"
            )
        if own.level != self.recipe.level:
            raise RhosightError(
                f"level {own.level:g}: intervals of {self.general_name} have the level "
                f"{self.recipe.level:g}; a model that is combined with it needs the same"
            )
        kernels = (*self.recipe.kernels, *own.kernels)
        self.reader = BlockReader(self.recipe.model_copy(update={"kernels": kernels}))
        self._state = self.general._state
        self._known = [self.targets.index(target) for target in own.targets]

    @property
    def is_fitted(self) -> bool:
        """Tell whether the model can predict."""
        return self.intervals is not None

    @property
    def uses_density(self) -> bool:
        """Tell whether the special model needs charge densities."""
        return self.special.uses_density

    @property
    def core_free(self) -> bool:
        """True if the special model ignores the density near the nuclei."""
        return self.special.core_free

    def fit(
        self,
        dataset: Dataset,
        run_dir: str | os.PathLike | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Fit the special model, and calibrate intervals of the mean.

        Both models predict each fold of the training set without the labels of the fold's
        formulas: the special one is fitted to the other folds, the general one keeps the
        hyperparameters of all labels. A material with a formula that the general model has learned
        from another material takes no part in the calibration.

        Parameters
        ----------
        dataset, run_dir, progress
            As :meth:`DescriptorModel.fit` takes them.

        Raises
        ------
        RhosightError
            If no target has :data:`FEWEST` labels for which the models can be compared.
        """
        self.special.fit(dataset, run_dir, progress)
        dataset = dataset[self.special.about["training_ids"]]
        labels = dataset.targets[list(self.special.targets)].to_numpy(float)
        general, _, (mean, half) = self.predict_folds(dataset)
        enough = self._check_counts(np.isfinite(mean + labels).sum(axis=0), len(dataset))
        self.intervals = ConformalIntervals.fit(labels, mean, half, self.recipe.level)
        alone, both = (np.nansum((part - labels) ** 2, axis=0) for part in (general[0], mean))
        pairs = zip(self.special.targets, enough & (both < alone), strict=True)
        self.kept = tuple(target for target, is_better in pairs if is_better)
        self._remember_both()
        self.out_of_fold = self.special.out_of_fold
        return self

    def _check_counts(self, counts: np.ndarray, materials: int) -> np.ndarray:
        """Tell for which targets the models can be compared."""
        if counts.max() < FEWEST:
            raise RhosightError(
                f"only {counts.max()} of {materials} materials show whether this model adds "
                f"anything to {self.general_name}, which has learned from others with the same "
                f"formulas; at least {FEWEST} are needed. Train without --with-structure"
            )
        return counts >= FEWEST

    def predict_folds(self, dataset: Dataset) -> tuple[Pair, Pair, Pair]:
        """Return what both models and their mean predict of a training set by folds.

        Parameters
        ----------
        dataset
            That from which the special model has just learned.

        Returns
        -------
        Predictions of the general model, of the special one, and their mean; NaN where a model
        cannot predict without having learned from the material.
        """
        table = self.special.out_of_fold.pivot(index="material_id", columns="target")
        labels, mean, std = (
            table[column].reindex(dataset.ids)[list(self.special.targets)].to_numpy(float)
            for column in ("true", "predicted", "std")
        )
        intervals = ConformalIntervals.fit(labels, mean, std, self.recipe.level)
        special = mean, intervals.half_widths(mean, std)
        general = self._leave_out_general(dataset)
        return general, special, mix(general, special)

    def _remember_both(self) -> None:
        """Set what is stored about both models."""
        self.explainer = None
        self.units = self.general.units | self.special.units
        own = self.special.about
        ids = dict.fromkeys([*self.general.about["training_ids"], *own["training_ids"]])
        about = {"codes": own["codes"], "training_ids": list(ids), "special": own}
        self.about = {**self.general.about, **about}
        self.scores = dict(self.general.scores)

    def _leave_out_general(self, dataset: Dataset) -> Pair:
        """Predict materials by the general model without their fold; NaN if it cannot."""
        known = self._load_known()
        formulas, given = group_labels(known), group_labels(dataset)
        recipe = self.special.recipe
        parts = enumerate(folds(dataset, recipe.n_splits, recipe.seed))
        fold = {formula: number for number, (_, rest) in parts for formula in given[rest]}
        groups = np.array([fold.get(one, -1 - row) for row, one in enumerate(formulas)])
        left_out = self.general.in_units(*self.general.process.leave_out(groups))
        at = pd.Index(known.ids).get_indexer(pd.Index(dataset.ids))
        same = (at >= 0) & (formulas[at] == given)
        mean, half = (np.where(same[:, None], part[at], np.nan) for part in left_out)
        new = np.flatnonzero(~np.isin(given, formulas))
        if len(new):
            others = dataset[new]
            table = self.general.reader.table(others)
            elements = [elements_of(structure) for structure in others.structures]
            found = self.general.estimate(table, elements, [None] * len(table))
            mean[new], half[new] = self.general.in_units(found.mean, found.std)
        return mean[:, self._known], half[:, self._known]

    def _load_known(self) -> Dataset:
        """Load the training set of the general model."""
        about = self.general.about
        return load_dataset(about["dataset"])[about["training_ids"]]

    def find_learned(self, dataset: Dataset) -> np.ndarray:
        """Tell which materials have a formula that the general model has learned."""
        return np.isin(group_labels(dataset), group_labels(self._load_known()))

    def score(self, dataset: Dataset) -> dict[str, dict[str, float]]:
        """Score as :meth:`SavedModel.score`.

        Targets without labels there keep the scores of the general model on its own test set.

        Raises
        ------
        RhosightError
            If either model has learned from one of the materials or its formula.
        """
        require_unseen(dataset, self.special.about["training_ids"])
        if learned := int(self.find_learned(dataset).sum()):
            raise RhosightError(
                f"{self.general_name} has learned the formulas of {learned} of {len(dataset)} "
                "materials; leave them out of the test set (see find_learned)"
            )
        self.scores = self.general.scores | super().score(dataset)
        return self.scores

    def find_shares(
        self, table: pd.DataFrame, structures: Sequence[Structure]
    ) -> tuple[np.ndarray, list[str | None]]:
        """Return the weights of the general model, and why the special one takes no part.

        The weights are those of :meth:`weigh`.
        """
        elements = [elements_of(structure) for structure in structures]
        both = self._estimate_both(table, elements, self._check_volumes(structures))
        return self.weigh(*both)[0], list(both[1].outside)

    def _estimate_both(
        self, table: pd.DataFrame, elements: list[set[str]], strains: list[str | None]
    ) -> tuple[Estimate, Estimate]:
        """Return what each model predicts; volumes are judged by the data of each."""
        is_relaxed = self.special.about.get("dataset") in BUNDLED
        own = [reason if is_relaxed else None for reason in strains]
        return self.estimate(table, elements, strains), self.special.estimate(table, elements, own)

    def weigh(self, general: Estimate, special: Estimate) -> tuple[np.ndarray, Pair]:
        """Return the weights of the general model, and the weighted mean.

        Returns
        -------
        The weights, shape (n, targets of the special model), 1 where that one takes no part; then
        mean and half width, of the same shape.
        """
        all_means, all_halves = self.in_units(general.mean, general.std)
        broad = all_means[:, self._known], all_halves[:, self._known]
        narrow = self.special.in_units(special.mean, special.std)
        speaks = np.array([reason is None for reason in special.outside], dtype=bool)
        kept = np.array([target in self.kept for target in self.special.targets])
        share = np.where(speaks[:, None] & kept, share_of_first(broad, narrow), 1.0)
        return share, mix(broad, narrow, share)

    def _columns(
        self, table: pd.DataFrame, elements: list[set[str]], strains: list[str | None]
    ) -> dict[str, Any]:
        general, special = self._estimate_both(table, elements, strains)
        columns = self._tabulate(general)
        mean, half = self.weigh(general, special)[1]
        assert self.intervals is not None, "the model is fitted"
        low, high = self.intervals(mean, half)
        speaks = np.array([reason is None for reason in special.outside], dtype=bool)
        for target in self.kept:
            number = self.special.targets.index(target)
            if target in (self.recipe.scales or {}):  # whose values are not negative
                low[:, number] = np.maximum(low[:, number], 0.0)
            for end, values in (("", mean), ("_low", low), ("_high", high)):
                name = f"{target}{end}"
                columns[name] = np.where(speaks, values[:, number], columns[name])
        if set(self.kept) == set(self.targets):
            pairs = zip(general.outside, speaks, strict=True)
            columns["outside"] = [None if known else reason for reason, known in pairs]
        if self.uses_density:
            columns[UNUSED_DENSITY] = list(special.outside)
        return columns

    def _write(self, folder: Path) -> dict[str, Any]:
        assert self.intervals is not None, "the model is fitted"
        return {
            **self.special._write(folder),
            "general": self._identify_general(),
            "kept": list(self.kept),
            "combined_intervals": self.intervals.to_dict(),
        }

    @classmethod
    def _read(cls, config: dict[str, Any], folder: Path) -> Self:
        model = cls(DescriptorRecipe(**config["recipe"]))
        if config["general"] != model._identify_general():
            raise RhosightError(
                f"it was trained beside another version of the model {model.general_name}"
            )
        model.special._state = DescriptorState.from_state(config, load_file(folder / WEIGHTS))
        model.special.units = {name: config["units"][name] for name in model.special.targets}
        model.special.about = config["about"]["special"]
        model.kept = tuple(config["kept"])
        model.intervals = ConformalIntervals.from_dict(config["combined_intervals"])
        return model

    def _identify_general(self) -> dict[str, str]:
        return {"name": self.general_name, "sha256": BUNDLED_MODELS[self.general_name]}

    def _describe(self) -> tuple[str, str]:
        return describe_combination(self.special.recipe, self.general_name, self.about, self.kept)


def share_of_first(first: Pair, second: Pair) -> np.ndarray:
    """Return the weight of the first of two predictions by 1 / variance."""
    return 1 / (1 + (first[1] / second[1]) ** 2)


def mix(first: Pair, second: Pair, share: np.ndarray | None = None) -> Pair:
    """Return the weighted means of two predictions and of their half widths.

    ``share`` is the weight of the first, by 1 / variance if it is not given.
    """
    share = share_of_first(first, second) if share is None else share
    mean, half = (
        np.where(share == 1, a, share * a + (1 - share) * b)
        for a, b in zip(first, second, strict=True)
    )
    return mean, half
