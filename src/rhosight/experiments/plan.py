"""Which jobs the paper's experiments are made of, and what their results are called in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from ..dataset.dataset import Dataset
from ..errors import RhosightError
from ..inputs.text.description import EXTENTS
from ..models.baselines.baselines import BASELINES, PRETRAINED
from ..models.baselines.chgnet import chgnet_version
from ..models.gaussian_process.recipe import DESCRIPTOR_RECIPES
from ..networks.recipe import Recipe
from .jobs import Job, JobFolder, Split
from .presets import CHOSEN, TRIALS, Preset

TABLE1_RUNS = 3
"""Runs of Table 1: at least so many repeats of the chosen trial, as the paper has."""

KEYS: tuple[str, ...] = ("repeat", "fold", "extent", "trial")
"""Columns that tell where a row of a job's result belongs; the others are the job's own."""


@dataclass(frozen=True)
class Entry:
    """A job, and what an experiment calls it: one job may serve several.

    Attributes
    ----------
    job
        What is run.
    extent
        Of the text, where the experiment varies it.
    trial
        ``"T1"`` to ``"T5"`` in Tables 2 and 3.
    """

    job: Job
    extent: str = ""
    trial: str = ""


@dataclass(frozen=True, eq=False)
class Plan:
    """The jobs of a preset on a dataset.

    Repeat r draws test part and folds with seed r and trains with seed r; the first is the split
    of :func:`rhosight.cross_validate`.

    Parameters
    ----------
    dataset
        Materials that have at least one of the targets.
    preset
        With which networks.
    repeats
        How many; a repeat does not depend on how many there are, so they accumulate.
    only_folds
        Run only the first so many folds of each repeat.
    """

    dataset: Dataset
    preset: Preset
    repeats: int = 1
    only_folds: int | None = None

    @classmethod
    def of(
        cls, dataset: Dataset, preset: Preset, repeats: int = 1, only_folds: int | None = None
    ) -> Plan:
        """The plan for a dataset, without the materials that have none of the targets.

        Raises
        ------
        RhosightError
            For a target that the dataset does not have, or fewer than one repeat.
        """
        if repeats < 1:
            raise RhosightError(f"repeats is at least 1, not {repeats}")
        have = dataset.with_targets(preset.targets).targets.count()
        if lacking := [name for name in preset.targets if not have.get(name, 0)]:
            raise RhosightError(
                f"{dataset.metadata.get('name', 'dataset')}: has no {' and no '.join(lacking)}, "
                f"and the paper's experiments are about {', '.join(preset.targets)}; `rhosight "
                "crossval` takes any target"
            )
        return cls(dataset.require_targets(preset.targets, how="any"), preset, repeats, only_folds)

    def stacked(self) -> list[Entry]:
        """Image, text and stacked models for each extent of the text (Figures 2 and 9).

        The image model is one job, whatever the extent; the stacked models begin with it.
        """
        found = []
        for split in self._splits(self.repeats):
            for extent in EXTENTS:
                for recipe in self.preset.stacked(extent):
                    image = self._image_of(self._network(recipe, split))
                    found.append(Entry(image))
                    found.append(Entry(self._network(recipe, split, (image,)), extent))
        # once each: the image model is the same for all extents
        return list({(entry.job.name, entry.extent): entry for entry in found}.values())

    def clip(
        self,
        trials: Sequence[str] = TRIALS,
        fourier: bool = False,
        targets: Sequence[str] = (),
        repeats: int | None = None,
    ) -> list[Entry]:
        """CLIP with the hyper-parameters of some trials (Tables 1 to 3).

        Parameters
        ----------
        trials
            Some of ``T1`` to ``T5``.
        fourier
            On Fourier transforms in grey, not on slices in viridis.
        targets
            What the experiment shows; all by default.
        repeats
            Those of the plan by default.
        """
        found = []
        wanted = tuple(targets) or self.preset.targets
        for split in self._splits(repeats or self.repeats):
            needs = ()
            if self.preset.pretraining:
                needs = (self._network(self.preset.pretraining, split),)
            for trial in trials:
                for recipe in self.preset.clip(trial, fourier, wanted):
                    job = self._network(recipe, split, needs)
                    found.append(Entry(job, recipe.text.extent, trial))
        return found

    def chosen_clip(self) -> list[Entry]:
        """The runs of Table 1: every run has a split of its own.

        The paper's runs have test parts of their own: R² and RMSE of one target imply labels of
        another spread in each.
        """
        return self.clip((CHOSEN,), repeats=max(self.repeats, TABLE1_RUNS))

    def baselines(self, repeats: int | None = None) -> list[Entry]:
        """The simple models, on the same folds."""
        return [
            Entry(Job("baseline", self.fingerprint, split, baseline=name, seed=split.repeat))
            for split in self._splits(repeats or self.repeats)
            for name in self.baseline_names
        ]

    @cached_property
    def baseline_names(self) -> tuple[str, ...]:
        """Those that the dataset's densities and the installed packages allow."""
        there = PRETRAINED if chgnet_version() else ()
        names = (*BASELINES, *there, *DESCRIPTOR_RECIPES)
        return names if self._has_difference else tuple(n for n in names if n != "promolecule")

    @cached_property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint()

    @property
    def deviations(self) -> dict[str, str]:
        """What is done otherwise than in the paper → how."""
        found = dict(self.preset.deviations)
        if not self._has_difference:
            found["density"] = (
                "the dataset holds total densities only: the difference is to free atoms of the "
                "table in the package, and there is no promolecule baseline"
            )
        return found

    @cached_property
    def _has_difference(self) -> bool:
        return "difference" in self.dataset.densities[0].kinds

    def _splits(self, repeats: int) -> Iterator[Split]:
        preset = self.preset
        for repeat in range(repeats):
            for fold in range(preset.n_splits)[: self.only_folds]:
                yield Split(repeat, fold, preset.n_splits, preset.test_fraction)

    def _network(self, recipe: Recipe, split: Split, needs: tuple[Job, ...] = ()) -> Job:
        changes: dict[str, Any] = {"seed": recipe.seed + split.repeat}
        if not self._has_difference:
            changes["image"] = {"settings": {"reference": "free-atoms"}}
        return Job(
            "network",
            self.fingerprint,
            split,
            recipe=recipe.replace(**changes),
            needs=needs,
        )

    def _image_of(self, both: Job) -> Job:
        """The image model of a stacked one: without what only the text model reads, so that all
        extents have the same.
        """
        plain = Recipe()
        stacked = plain.stacked.model_dump(include={"head_epochs", "fine_tuning_epochs"})
        recipe = both.recipe.replace(modality="image", text=plain.text, stacked=stacked)
        return Job("network", both.dataset, both.split, recipe=recipe)


class Frames:
    """Results of some finished jobs as long tables, read when they are asked for.

    Parameters
    ----------
    entries
        The jobs, and what they are called.
    folder
        Where their results are.
    """

    def __init__(self, entries: Sequence[Entry], folder: JobFolder):
        self._entries, self._folder = entries, folder

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row a prediction: repeat, fold, extent, trial, model, stage, part, target,
        material_id, true, predicted (in the target's unit).
        """
        return _joined(self._entries, self._folder.predictions)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch: repeat, fold, extent, trial, model, stage, epoch, train, watched (Huber
        losses of standardised targets), and r2_TARGET, rmse_TARGET of the standardised target on
        the validation fold.
        """
        networks = [entry for entry in self._entries if entry.job.kind == "network"]
        return _joined(networks, self._folder.history)


def _joined(entries: Sequence[Entry], read: Callable[[Job], pd.DataFrame]) -> pd.DataFrame:
    frames, rows = [], []
    for entry in entries:
        frames.append(read(entry.job))
        split = entry.job.split
        rows.append((split.repeat, split.fold, entry.extent, entry.trial))
    if not frames:
        return pd.DataFrame()
    keys = pd.DataFrame(rows, columns=list(KEYS))
    keys = keys.loc[keys.index.repeat([len(frame) for frame in frames])]
    tables = [keys.reset_index(drop=True), pd.concat(frames, ignore_index=True)]
    return pd.concat(tables, axis="columns")
