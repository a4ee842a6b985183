"""Plan the jobs of the paper's experiments, and read their results as long tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from ..dataset.dataset import Dataset
from ..errors import RhosightError
from ..inputs.text.extents import EXTENTS
from ..models.baselines.baselines import BASELINES, COMPARED
from ..models.baselines.chgnet import find_chgnet_version
from ..models.gaussian_process.recipe import POTENTIAL_RECIPES
from ..networks.recipe import Recipe
from .jobs import Job, JobFolder, Split
from .presets import CHOSEN, TRIALS, Preset
from .processes import PROCESSES

TABLE1_RUNS = 3
"""Smallest number of runs in Table 1, the number of the paper."""

KEYS: tuple[str, ...] = ("repeat", "fold", "extent", "trial")
"""Columns that are added to the rows of a job's result."""


@dataclass(frozen=True)
class Entry:
    """Job with its labels in an experiment; several experiments may share a job.

    Attributes
    ----------
    job
        Job to run.
    extent
        Extent of the text, where the experiment varies it.
    trial
        ``"T1"`` to ``"T5"`` in Tables 2 and 3.
    """

    job: Job
    extent: str = ""
    trial: str = ""


@dataclass(frozen=True, eq=False)
class Plan:
    """Jobs of a preset on a dataset.

    Repeat r draws test set and folds with seed r and trains with seed r. The first split is that
    of :func:`rhosight.cross_validate`.

    Parameters
    ----------
    dataset
        Materials that have at least one of the targets.
    preset
        Networks and budget.
    repeats
        Number of repeats. A repeat does not depend on this number, so repeats accumulate.
    only_folds
        Run only the first folds of each repeat, this many.
    """

    dataset: Dataset
    preset: Preset
    repeats: int = 1
    only_folds: int | None = None

    @classmethod
    def of(
        cls, dataset: Dataset, preset: Preset, repeats: int = 1, only_folds: int | None = None
    ) -> Plan:
        """Plan the jobs for a dataset, without materials that have none of the targets.

        Raises
        ------
        RhosightError
            If the dataset lacks a target, or for fewer than one repeat.
        """
        if repeats < 1:
            raise RhosightError(f"repeats must be at least 1, not {repeats}")
        have = dataset.with_targets(preset.targets).targets.count()
        if lacking := [name for name in preset.targets if not have.get(name, 0)]:
            raise RhosightError(
                f"{dataset.metadata.get('name', 'dataset')}: has no {' and no '.join(lacking)}, "
                f"but the paper's experiments need {', '.join(preset.targets)}; use `rhosight "
                "crossval` for other targets"
            )
        return cls(dataset.require_targets(preset.targets, how="any"), preset, repeats, only_folds)

    def stacked(self) -> list[Entry]:
        """Return image, text and stacked models for each extent (Figures 2 and 9).

        The image model is one job for all extents; the stacked models start from it.
        """
        entries = []
        for split in self._splits(self.repeats):
            for extent in EXTENTS:
                for recipe in self.preset.stacked(extent):
                    image = self._image_of(self._network(recipe, split))
                    entries.append(Entry(image))
                    entries.append(Entry(self._network(recipe, split, (image,)), extent))
        # without duplicates: the image model is the same for all extents
        return list({(entry.job.name, entry.extent): entry for entry in entries}.values())

    def clip(
        self,
        trials: Sequence[str] = TRIALS,
        fourier: bool = False,
        targets: Sequence[str] = (),
        repeats: int | None = None,
    ) -> list[Entry]:
        """Return CLIP with the hyperparameters of some trials (Tables 1 to 3).

        Parameters
        ----------
        trials
            Some of ``T1`` to ``T5``.
        fourier
            Use Fourier transforms in grey instead of slices in viridis.
        targets
            Targets of the experiment; all by default.
        repeats
            Number of repeats; that of the plan by default.
        """
        entries = []
        wanted = tuple(targets) or self.preset.targets
        for split in self._splits(repeats or self.repeats):
            needs: tuple[Job, ...] = ()
            if self.preset.pretraining:
                needs = (self._network(self.preset.pretraining, split),)
            for trial in trials:
                for recipe in self.preset.clip(trial, fourier, wanted):
                    job = self._network(recipe, split, needs)
                    entries.append(Entry(job, recipe.text.extent, trial))
        return entries

    def chosen_clip(self) -> list[Entry]:
        """Return the runs of Table 1; every run has a split of its own.

        So have the paper's runs: R² and RMSE of one target imply labels with a different standard
        deviation in each test set.
        """
        return self.clip((CHOSEN,), repeats=max(self.repeats, TABLE1_RUNS))

    def baselines(self, repeats: int | None = None) -> list[Entry]:
        """Return the simple models, on the same folds."""
        return [
            Entry(Job("baseline", self.fingerprint, split, baseline=name, seed=split.repeat))
            for split in self._splits(repeats or self.repeats)
            for name in self.baseline_names
        ]

    @cached_property
    def baseline_names(self) -> tuple[str, ...]:
        """Baselines that the dataset's densities and the installed packages allow."""
        names: tuple[str, ...] = (*BASELINES, *COMPARED, *PROCESSES)
        if find_chgnet_version() is None:
            names = tuple(n for n in names if n not in (*COMPARED, *POTENTIAL_RECIPES))
        return names if self._has_difference else tuple(n for n in names if n != "promolecule")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the dataset."""
        return self.dataset.fingerprint()

    @property
    def deviations(self) -> dict[str, str]:
        """Differences from the paper: subject → description."""
        deviations = dict(self.preset.deviations)
        if not self._has_difference:
            deviations["density"] = (
                "the dataset has total densities only: the difference is taken to the bundled free "
                "atoms, and there is no promolecule baseline"
            )
        return deviations

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
        """Return the image model of a stacked one.

        Fields that only the text model uses are reset, so that all extents share the job.
        """
        plain = Recipe()
        stacked = plain.stacked.model_dump(include={"head_epochs", "fine_tuning_epochs"})
        recipe = both.network.replace(modality="image", text=plain.text, stacked=stacked)
        return Job("network", both.dataset, both.split, recipe=recipe)


class Frames:
    """Results of finished jobs as long tables, read when they are needed.

    Parameters
    ----------
    entries
        Jobs with their labels.
    folder
        Folder with their results.
    """

    def __init__(self, entries: Sequence[Entry], folder: JobFolder):
        self._entries, self._folder = entries, folder

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Predictions, one per row.

        Columns are repeat, fold, extent, trial, model, stage, part, target, material_id, true and
        predicted (in the unit of the target).
        """
        return _join_results(self._entries, self._folder.predictions)

    @cached_property
    def history(self) -> pd.DataFrame:
        """Training history, one epoch per row.

        Columns are repeat, fold, extent, trial, model, stage, epoch, train, watched (Huber losses
        of standardised targets), and r2_TARGET, rmse_TARGET of the standardised target on the
        validation fold.
        """
        networks = [entry for entry in self._entries if entry.job.kind == "network"]
        return _join_results(networks, self._folder.history)


def _join_results(entries: Sequence[Entry], read: Callable[[Job], pd.DataFrame]) -> pd.DataFrame:
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
