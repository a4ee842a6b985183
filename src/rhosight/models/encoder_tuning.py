"""Fine-tune the encoders that Gaussian processes read, and keep only what helps.

The networks of :mod:`rhosight.training` tune an encoder in the paper's two stages, on a part of the
training set. The rest judges the stage: the Gaussian process is fitted to the features of that part
before and after it, and the encoder is kept only if the squared error on the rest falls by more
than its standard error. A tuned encoder has seen labels, so errors on its own training materials
say nothing: intervals come from folds in which the whole procedure is repeated.

>>> tuner = EncoderTuner(recipe, dataset, table)
>>> choice = tuner.tune(rows).choose(recipe)
>>> fit_descriptors(recipe, choice.table(rows), tuner.targets, rows)
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor

from ..dataset.dataset import Dataset
from ..dataset.splits import split
from ..inputs.descriptors.blocks import to_blocks
from ..inputs.progress import Progress
from ..inputs.tensors import Inputs
from ..networks.lesson import lesson_hash
from ..networks.recipe import Recipe
from ..training.folds import fit_scaler
from ..training.stages import EncoderCache, TrainingData, train
from .blocks import CHUNK, BlockReader
from .encoder_blocks import EncoderBlocks, make_readers, write_tuned
from .gaussian_process.fitting import fit_descriptors, make_committee, select_types
from .gaussian_process.kernel import Kernel
from .gaussian_process.recipe import ENCODERS, DescriptorRecipe
from .inputs import make_inputs


@dataclass(frozen=True)
class Verdict:
    """The result of judging one fine-tuned encoder.

    Attributes
    ----------
    kind
        ``image`` or ``text``.
    kept
        Whether the fine-tuned encoder is read.
    frozen, tuned
        RMSE on the judging materials before and after the stage, in standard deviations of the
        targets, over all targets.
    margin, needed
        Decrease of the squared error, in its standard errors, and the decrease from which an
        encoder is kept.
    """

    kind: str
    kept: bool
    frozen: float
    tuned: float
    margin: float
    needed: float

    def __str__(self) -> str:
        result = "kept" if self.kept else "not kept"
        if self.tuned == self.frozen and not self.kept:
            return f"fine-tuning of the {self.kind} encoder {result}: no epoch improved the network"
        change = 100 * (self.tuned / self.frozen - 1)
        return (
            f"fine-tuning of the {self.kind} encoder {result}: it changes the error on the "
            f"materials that chose its epoch by {change:+.1f} %, an improvement of "
            f"{self.margin:.1f} standard errors, where {self.needed:g} are needed"
        )


@dataclass(eq=False)
class TunedEncoder:
    """An encoder after fine-tuning.

    Attributes
    ----------
    kind
        ``image`` or ``text``.
    weights
        The tensors that have changed, as safetensors.
    blocks
        Computes the features of the first image or text.
    dataset
        The materials.
    """

    kind: str
    weights: bytes
    blocks: EncoderBlocks
    dataset: Dataset

    def __post_init__(self) -> None:
        self._read: dict[int, pd.DataFrame] = {}

    def replace(self, table: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
        """Return a table of all materials in which some rows have this encoder's features."""
        missing = [int(row) for row in rows if int(row) not in self._read]
        for start in range(0, len(missing), CHUNK):
            part = missing[start : start + CHUNK]
            features = self.blocks.compute(self.dataset[part])
            self._read |= {row: features.iloc[[number]] for number, row in enumerate(part)}
        own = pd.concat([self._read[int(row)] for row in rows])
        result = table.copy()
        result.loc[result.index[rows], list(own.columns)] = own.to_numpy()
        return result


@dataclass(frozen=True)
class Choice:
    """The fine-tuned encoders that a recipe reads.

    Attributes
    ----------
    kept
        The encoders whose fine-tuning is kept.
    verdicts
        One for each encoder of the recipe.
    frozen
        Features of all materials without fine-tuning.
    """

    kept: tuple[TunedEncoder, ...]
    verdicts: tuple[Verdict, ...]
    frozen: pd.DataFrame

    def table(self, rows: np.ndarray) -> pd.DataFrame:
        """Return the table of all materials; only ``rows`` have features of kept encoders."""
        table = self.frozen
        for encoder in self.kept:
            table = encoder.replace(table, rows)
        return table

    def write(self, folder: Path) -> None:
        """Write the tensors of kept encoders for the ``EncoderBlocks`` of a folder."""
        for encoder in self.kept:
            write_tuned(folder, encoder.kind, encoder.weights)


@dataclass(frozen=True)
class Tuned:
    """Fine-tuned encoders, not judged yet.

    Attributes
    ----------
    encoders
        Those of which an epoch was better than the start.
    fit, judge
        Rows that they learned from, and rows that judge them.
    frozen
        Features of all materials without fine-tuning.
    targets
        Labels, shape (materials, targets).
    """

    encoders: tuple[TunedEncoder, ...]
    fit: np.ndarray
    judge: np.ndarray
    frozen: pd.DataFrame
    targets: np.ndarray

    def choose(self, recipe: DescriptorRecipe) -> Choice:
        """Keep the encoders that improve a recipe's Gaussian process on the judging rows.

        They are tried one after the other, each together with those that were kept before.
        """
        settings = recipe.fine_tuning
        assert settings is not None
        choice = Choice((), (), self.frozen)
        best = self._squares(recipe, choice)
        for kind in (name for name in ENCODERS if getattr(recipe, name)):
            own = next((encoder for encoder in self.encoders if encoder.kind == kind), None)
            wider = replace(choice, kept=(*choice.kept, own)) if own else choice
            squares = self._squares(recipe, wider) if own else best
            gain = best - squares
            error = gain.std(ddof=1) / math.sqrt(len(gain)) if own else 0.0
            margin = float(gain.mean() / error) if error else 0.0
            frozen, tuned = (math.sqrt(float(values.mean())) for values in (best, squares))
            kept = own is not None and margin > settings.margin
            verdict = Verdict(kind, kept, frozen, tuned, margin, settings.margin)
            if verdict.kept:
                choice, best = wider, squares
            choice = replace(choice, verdicts=(*choice.verdicts, verdict))
        return choice

    def _squares(self, recipe: DescriptorRecipe, choice: Choice) -> np.ndarray:
        """Return the squared error of each judging material, mean over its targets."""
        table = choice.table(np.concatenate([self.fit, self.judge]))
        predicted = fit_descriptors(recipe, table, self.targets, self.fit)(self.judge)
        scale = fit_scaler(self.targets[self.fit])[1]
        return np.nanmean(((predicted - self.targets[self.judge]) / scale) ** 2, axis=1)


class EncoderTuner:
    """Fine-tunes the encoders of a recipe on parts of a dataset.

    Parameters
    ----------
    recipe
        With ``fine_tuning``.
    dataset
        All materials, each with a label.
    table
        Their features without fine-tuning.
    progress
        Called with (label, step, steps).

    Attributes
    ----------
    targets
        Labels, shape (materials, targets).
    """

    def __init__(
        self,
        recipe: DescriptorRecipe,
        dataset: Dataset,
        table: pd.DataFrame,
        progress: Progress | None = None,
    ):
        self.recipe, self.dataset, self.frozen = recipe, dataset, table
        self.targets = dataset.targets[list(recipe.targets)].to_numpy(dtype=float)
        self._progress = progress
        # views of inputs and features of untuned encoders, which no label touches
        self._inputs: dict[str, tuple[Recipe, Inputs]] = {}
        self._caches = {kind: EncoderCache() for kind in ENCODERS}

    def tune(self, rows: np.ndarray) -> Tuned:
        """Fine-tune each encoder on some materials; those of one formula stay together."""
        settings = self.recipe.fine_tuning
        assert settings is not None
        fit, judge = split(self.dataset[rows], settings.judging, self.recipe.seed)
        fit, judge = rows[fit], rows[judge]
        kinds = [kind for kind in ENCODERS if getattr(self.recipe, kind)]
        encoders = (self._tune_one(kind, fit, judge) for kind in kinds)
        found = tuple(encoder for encoder in encoders if encoder is not None)
        return Tuned(found, fit, judge, self.frozen, self.targets)

    def _show_epoch(self, label: str, epoch: int, epochs: int, watched: float) -> None:
        """Report an epoch of a stage."""
        if self._progress:
            self._progress(f"fine-tuning of encoders: {label}", epoch, epochs)

    def _tune_one(self, kind: str, fit: np.ndarray, judge: np.ndarray) -> TunedEncoder | None:
        """Return an encoder after fine-tuning, or None if no epoch was better."""
        if kind not in self._inputs:
            network = _make_network(self.recipe, kind)
            self._inputs[kind] = (
                network,
                make_inputs(self.dataset, network, progress=self._progress),
            )
        network, inputs = self._inputs[kind]
        scaler = fit_scaler(self.targets[np.concatenate([fit, judge])])
        data = TrainingData(inputs, self.targets, fit, judge, scaler)
        trained = train(network, data, self._caches[kind], progress=self._show_epoch)
        part = _select_first(self.recipe, kind)
        before = make_readers(part, None)[kind].encoder.model.state_dict()
        after = _merged_state(trained.encoders[0].model)
        changed = {
            name: value.detach().cpu().contiguous()
            for name, value in after.items()
            if not torch.equal(value.cpu(), before[name].cpu())
        }
        if not changed:
            return None
        weights = save(changed)
        with TemporaryDirectory() as folder:
            write_tuned(Path(folder), kind, weights)
            blocks = EncoderBlocks(part, Path(folder))
        return TunedEncoder(kind, weights, blocks, self.dataset)


def _make_network(recipe: DescriptorRecipe, kind: str) -> Recipe:
    """Return the network that fine-tunes the encoder of the first image or text."""
    settings = recipe.fine_tuning
    assert settings is not None
    fields: dict[str, Any] = {
        "modality": kind,
        "targets": recipe.targets,
        "augmentation": {"views": settings.views},
        "head": settings.head,
        "fine_tuning": settings.stage.model_dump(),
        "seed": recipe.seed,
    }
    if kind == "image":
        assert recipe.image is not None
        fields["image"] = {
            "backbone": recipe.image.backbone,
            "settings": recipe.image.images[0],
            "rate": settings.image_rate,
        }
    else:
        assert recipe.text is not None
        fields["text"] = {
            "backbone": recipe.text.backbone,
            "extent": recipe.text.extents[0],
            "max_tokens": recipe.text.max_tokens,
            # only the bundled encoder has a lesson, which is applied at once
            "element_steps": int(recipe.text.lesson and bool(lesson_hash(recipe.text.backbone))),
            "rate": settings.text_rate,
        }
    return Recipe(**fields)


def _select_first(recipe: DescriptorRecipe, kind: str) -> DescriptorRecipe:
    """Return a recipe that reads only the first image or text of another."""
    own: Any = getattr(recipe, kind)
    name = "images" if kind == "image" else "extents"
    own = own.model_copy(update={name: getattr(own, name)[:1]})
    parts = {other: own if other == kind else None for other in ENCODERS}
    return recipe.model_copy(update={**parts, "kernels": (Kernel(together=(kind,)),)})


def _merged_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the tensors of an encoder, with low-rank updates added."""
    for module in model.modules():
        merge: Any = getattr(module, "merge", None)
        if merge and hasattr(module, "base_layer"):
            merge()
    return {
        name.replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }


class ModelTuning:
    """Fine-tuned encoders of a model and of the folds that calibrate it.

    Parameters
    ----------
    recipe
        With ``fine_tuning``.
    dataset, table
        The training set, and its features without fine-tuning.
    progress
        Called with (label, step, steps).

    Attributes
    ----------
    table
        Features of the training set by the chosen encoders.
    verdicts
        A sentence on each encoder.
    """

    def __init__(
        self,
        recipe: DescriptorRecipe,
        dataset: Dataset,
        table: pd.DataFrame,
        progress: Progress | None = None,
    ):
        self._recipe, self._frozen = recipe, table
        self._tuner = EncoderTuner(recipe, dataset, table, progress)
        self._rows = np.arange(len(dataset))
        self._choice = self._tuner.tune(self._rows).choose(recipe)
        self.table = self._choice.table(self._rows)
        self.verdicts = [str(verdict) for verdict in self._choice.verdicts]

    @property
    def is_kept(self) -> bool:
        """True if an encoder is read after its fine-tuning."""
        return bool(self._choice.kept)

    def make_reader(self) -> BlockReader:
        """Return a reader whose first images and texts are read by the kept encoders."""
        folder = TemporaryDirectory(prefix="rhosight-encoders-")
        self._choice.write(Path(folder.name))
        reader = BlockReader(self._recipe, Path(folder.name))
        weakref.finalize(reader, folder.cleanup)  # other processes read it as long as the reader is
        return reader

    def tune_fold(self, rows: np.ndarray) -> pd.DataFrame:
        """Return features of encoders tuned, judged and chosen on some rows only."""
        return self._tuner.tune(rows).choose(self._recipe).table(self._rows)

    def leave_out(self, labels: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict each material from other groups, by features that have seen no label.

        See :meth:`rhosight.models.gaussian_process.process.GaussianProcess.leave_out`.
        """
        blocks = to_blocks(self._frozen, select_types(self._frozen["prototype"])[0])
        return make_committee(self._recipe, blocks).fit(blocks, labels).leave_out(groups)
