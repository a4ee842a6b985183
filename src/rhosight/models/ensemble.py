"""Ensemble: networks of folds and seeds with calibrated prediction intervals.

The training set is divided into folds. Each member learns from all folds but one, so every training
material has predictions by networks that have not seen it. A new material has predictions by all
members, and their mean is better than any single one.

Intervals are CV+ (:func:`rhosight.models.uncertainty.cv_plus`): the residual of each training
material is laid around the prediction of the members that have not seen that material. If the
members agree, an interval is as wide as their residuals; if they do not, it is wider. The spread of
the members is not used as a scale: for a training material it could be computed only over the
members that have not seen it, one per seed.

>>> model = rhosight.Ensemble(members=5, modality="image").fit(dataset[train])
>>> model.predict_intervals(dataset[test])
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from ..dataset.dataset import Dataset
from ..dataset.splits import check_labels, folds
from ..density.charge_density import ChargeDensity
from ..errors import RhosightError
from ..inputs.descriptors.blocks import needs_density
from ..inputs.descriptors.composition import composition_features
from ..inputs.progress import AnyProgress, EpochProgress, Progress
from ..networks.recipe import Recipe
from ..storage import open_run
from ..training.stages import EncoderCache
from .arrays import take_array
from .base import SavedModel
from .folder import WEIGHTS
from .inputs import find_prototypes, make_inputs
from .property_model import PropertyModel
from .provenance import collect_versions, find_codes, hash_weights, warn_of_other_codes
from .uncertainty import TrainingDomain, cv_plus

LEVEL = 0.9
"""Intended share of new materials whose true value lies in the interval."""


class Ensemble(SavedModel):
    """Networks of one recipe on folds of the training set, with prediction intervals.

    There is one network for each fold and seed, trained without that fold. The training domain is
    stored with them.

    Parameters
    ----------
    recipe
        Recipe of every member; the default recipe if not given. Seeds count up from its own.
    members
        Number of folds.
    seeds
        Networks per fold.
    level
        Intended share of new materials whose true value lies in the interval.
    **changes
        Fields of the recipe to change, as :meth:`rhosight.Recipe.replace` takes them.

    Attributes
    ----------
    networks
        The members, fold by fold and seed by seed (after ``fit``).
    out_of_fold
        Predictions of the training set, each the mean over the networks that have not seen the
        material (after ``fit``; not saved): columns material_id, target, fold, true, predicted.
    units, scores, about
        See :class:`rhosight.models.base.SavedModel`.
    """

    kind: ClassVar[str] = "ensemble"

    def __init__(
        self,
        recipe: Recipe | None = None,
        members: int = 5,
        seeds: int = 1,
        level: float = LEVEL,
        **changes: Any,
    ):
        super().__init__()
        if members < 2 or seeds < 1 or not 0 < level < 1:
            raise RhosightError(
                f"an ensemble of {members} fold(s), {seeds} seed(s) and level {level}: give at "
                "least two folds and one seed, and a level between 0 and 1"
            )
        self.recipe = (recipe or Recipe()).replace(**changes)
        self.members, self.seeds, self.level = members, seeds, level
        self.networks: list[PropertyModel] = []
        self.out_of_fold = pd.DataFrame()
        self._residuals = np.empty((0, 0))
        self._fold = np.empty(0, dtype=int)
        self._domain: TrainingDomain

    @property
    def targets(self) -> tuple[str, ...]:
        """The predicted targets, in order."""
        return self.recipe.targets

    @property
    def is_fitted(self) -> bool:
        """True if the model can predict."""
        return bool(self.networks)

    @property
    def uses_density(self) -> bool:
        """True if the model needs charge densities, as its members do."""
        return self.recipe.uses_image or needs_density(self.recipe.descriptors)

    def fit(
        self,
        dataset: Dataset,
        run_dir: str | os.PathLike | None = None,
        progress: EpochProgress | None = None,
    ) -> Self:
        """Train all members on the materials with at least one of the recipe's targets.

        Parameters
        ----------
        dataset
            The training set. Materials of one formula are in one fold.
        run_dir
            Folder for finished stages and checkpoints; the same call with the same folder resumes
            an interrupted one.
        progress
            Called with (label, step, steps, watched loss).

        Raises
        ------
        RhosightError
            As :meth:`rhosight.PropertyModel.fit`, or if there are fewer formulas than folds.
        """
        recipe = self.recipe
        recipe.require_training()
        dataset = dataset.require_targets(recipe.targets, how="any")
        settings = {
            "task": "ensemble",
            "recipe": recipe.flat(),
            "weights": hash_weights(recipe.weight_sources),
            "members": self.members,
            "seeds": self.seeds,
            "dataset_sha256": dataset.fingerprint(),
            "versions": collect_versions(),
        }
        folder = open_run(run_dir, settings)
        labels = dataset.targets[list(recipe.targets)].to_numpy(dtype=float)
        predicted = self._fit_members(dataset, folder, progress)
        self._residuals = np.abs(labels - predicted)
        self._domain = TrainingDomain.fit(*_domain_features(dataset.structures))
        self.out_of_fold = pd.DataFrame(
            {
                "material_id": np.repeat(dataset.ids, len(self.targets)),
                "target": np.tile(self.targets, len(dataset)),
                "fold": np.repeat(self._fold, len(self.targets)),
                "true": labels.ravel(),
                "predicted": predicted.ravel(),
            }
        ).dropna(ignore_index=True)
        seen = {i for member in self.networks for i in member.about["training_ids"]}
        about = self.networks[0].about
        codes = sorted(find_codes(dataset)) if about["codes"] else []
        self._remember(
            dataset, training_ids=sorted(seen), backbones=about["backbones"], codes=codes
        )
        return self

    def _fit_members(
        self, dataset: Dataset, folder: Path | None, progress: EpochProgress | None
    ) -> np.ndarray:
        """Train the members; predict each material with those that have not seen it."""
        recipe = self.recipe
        parts = folds(dataset, self.members, recipe.seed)
        check_labels(dataset, recipe.targets, [rows for rows, _ in parts])
        prototypes = find_prototypes(dataset, recipe)
        inputs = make_inputs(dataset, recipe, progress=progress, prototypes=prototypes)
        cache = EncoderCache()
        networks: list[PropertyModel] = []
        predicted = np.full((len(dataset), len(recipe.targets)), np.nan)
        self._fold = np.zeros(len(dataset), dtype=int)
        for fold, (rows, left_out) in enumerate(parts):
            self._fold[left_out] = fold
            own = []
            for _ in range(self.seeds):
                number = len(networks) + 1
                label = f"member {number} of {self.members * self.seeds}: "
                member = PropertyModel(recipe, seed=recipe.seed + number - 1)
                member.fit_rows(
                    dataset,
                    inputs,
                    rows,
                    prototypes,
                    folder / f"member-{number}" if folder else None,
                    _add_prefix(progress, label),
                    cache,
                )
                networks.append(member)
                own.append(member.predict_inputs(inputs, left_out))
            predicted[left_out] = np.mean(own, axis=0)
        self.networks = networks
        return predicted

    def predict(
        self,
        materials: Dataset | Sequence[ChargeDensity],
        progress: Progress | None = None,
    ) -> pd.DataFrame:
        """Predict the mean of all members, see :meth:`rhosight.PropertyModel.predict`."""
        return self.predict_intervals(materials, progress)[list(self.targets)]

    def predict_intervals(
        self,
        materials: Dataset | Sequence[ChargeDensity],
        progress: Progress | None = None,
    ) -> pd.DataFrame:
        """Predict with intervals, and flag materials outside the training domain.

        Parameters
        ----------
        materials, progress
            As :meth:`rhosight.PropertyModel.predict` takes them.

        Returns
        -------
        DataFrame indexed as that of :meth:`predict`. For each target: ``{target}``, the mean of the
        members; ``{target}_low``, ``{target}_high``, the smallest symmetric interval that contains
        the one of CV+; ``{target}_std``, the standard deviation over members. ``outside`` is the
        reason why a material is out of domain in composition and volume, or None.
        """
        self.check_fitted()
        first = self.networks[0]  # all members read the same inputs
        materials = first.accept(materials)
        parts: list[np.ndarray] = []
        names: list[str] = []
        structures: list[Any] = []
        codes: set[str] = set()
        for part, inputs in first.iterate_inputs(materials, progress):
            parts.append(np.stack([member.predict_inputs(inputs) for member in self.networks]))
            names += part.ids if isinstance(part, Dataset) else [d.name for d in part]
            structures += (
                part.structures if isinstance(part, Dataset) else [d.structure for d in part]
            )
            codes |= find_codes(part)
        warn_of_other_codes(codes, self.about.get("codes", []))
        shape = (len(self.networks), 0, len(self.targets))
        values = np.concatenate(parts, axis=1) if parts else np.empty(shape)
        columns: dict[str, Any] = {}
        for number, target in enumerate(self.targets):
            mean, spread = values[..., number].mean(axis=0), values[..., number].std(axis=0, ddof=1)
            half = self._half_widths(values[..., number], mean, self._residuals[:, number])
            columns[target] = mean
            columns[f"{target}_low"], columns[f"{target}_high"] = mean - half, mean + half
            columns[f"{target}_std"] = spread
        outside = self._domain.reasons(*_domain_features(structures)) if len(names) else []
        index = pd.Index(names, name="material_id")
        return self._check_predictions(pd.DataFrame(columns | {"outside": outside}, index=index))

    def _half_widths(
        self, values: np.ndarray, mean: np.ndarray, residuals: np.ndarray
    ) -> np.ndarray:
        """Return the distance from the mean to the farther end of CV+, shape (n,)."""
        centres = values.reshape(self.members, self.seeds, -1).mean(axis=1)
        known = ~np.isnan(residuals)
        low, high = cv_plus(centres.T, residuals[known], self._fold[known], self.level)
        return np.maximum(mean - low, high - mean)

    def _write(self, folder: Path) -> dict[str, Any]:
        for number, member in enumerate(self.networks, start=1):
            member.save_pretrained(folder / f"member-{number}")
        arrays = {"residuals": self._residuals, "fold": self._fold}
        arrays |= {f"domain/{name}": array for name, array in self._domain.arrays().items()}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / WEIGHTS)
        return {
            "recipe": self.recipe.flat(),
            "members": self.members,
            "seeds": self.seeds,
            "level": self.level,
            "domain": self._domain.to_dict(),
        }

    @classmethod
    def _read(cls, config: dict[str, Any], folder: Path) -> Self:
        recipe = Recipe.from_flat(config["recipe"])
        model = cls(recipe, config["members"], config["seeds"], config["level"])
        arrays = load_file(folder / WEIGHTS)
        shape = None, len(model.targets)
        model._residuals = take_array(arrays, "residuals", shape, missing=True)
        model._fold = take_array(arrays, "fold", model._residuals.shape[:1], integers=True)
        if not ((model._fold >= 0) & (model._fold < model.members)).all():
            raise ValueError("array 'fold' names folds that do not exist")
        domain = {k.removeprefix("domain/"): v for k, v in arrays.items() if "/" in k}
        model._domain = TrainingDomain.from_state(config["domain"], domain)
        count = model.members * model.seeds
        model.networks = [
            PropertyModel.from_pretrained(folder / f"member-{number + 1}")
            for number in range(count)
        ]
        return model

    def _describe(self) -> tuple[str, str]:
        title, text = self.networks[0]._describe()
        return f"Ensemble: {title}", (
            f"{len(self.networks)} networks, {self.seeds} for each of {self.members} folds of the "
            "training set, trained without that fold; the prediction is their mean. Prediction "
            f"intervals are CV+, for {100 * self.level:g} % of materials like the training set. "
            "`predict_intervals` flags materials with other elements, or with a composition and "
            f"volume far from the training set.\n\n{text}"
        )


def _add_prefix(progress: AnyProgress | None, prefix: str) -> AnyProgress | None:
    if progress is None:
        return None
    return lambda label, *values: progress(f"{prefix}{label}", *values)


def _domain_features(structures: Sequence[Any]) -> tuple[np.ndarray, list[set[str]]]:
    """Return Magpie statistics with the volume per atom, and elements, of n crystals."""
    features = composition_features(structures).drop(columns=["prototype", "nsites"])
    elements = [{str(e) for e in s.composition.element_composition} for s in structures]
    return features.to_numpy(dtype=float), elements
