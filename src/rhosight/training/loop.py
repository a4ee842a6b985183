"""The loop that every stage of training runs in: Lightning, and what makes a stage resumable.

A :class:`Stage` says what is learned; :func:`fit_stage` runs it, keeps the best weights and, with a
folder, goes on where an interrupted run stopped. Everything random is drawn from the plan's seeds,
epoch by epoch, so that a run that was interrupted and resumed ends with the same weights as one
that was not.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.strategies import DDPStrategy
from safetensors.torch import load_file, save_file
from torch import Tensor, multiprocessing, nn

from ..errors import RhosightError
from ..inputs.progress import EpochProgress
from ..networks.settings import Precision
from ..storage import replacing

CHECKPOINT_SECONDS = 60.0

EVAL_BATCH = 64
"""Materials at a time where nothing is learned."""


class Diverged(RhosightError):
    """A stage whose loss was never a finite number."""


@dataclass(frozen=True)
class Plan:
    """The settings of one stage.

    Attributes
    ----------
    label
        What progress calls it.
    seeds
        Of everything random in it; no two stages of a run have the same.
    keeps_start
        The weights that it begins with are among those that the best are chosen from.
    precision
        See :class:`rhosight.networks.recipe.Recipe`.
    devices
        Processes that share every batch.
    """

    label: str
    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    patience: int
    weight_decay: float
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    keeps_start: bool = False
    precision: Precision = "auto"
    devices: int = 1

    def seed(self, *more: int) -> int:
        return hash((*self.seeds, *more)) % 2**63


class Stage(L.LightningModule, ABC):
    """One stage: ``network`` learns; ``loss`` and ``parameter_groups`` say what and how fast."""

    def __init__(self, plan: Plan, network: nn.Module, stop_rows: np.ndarray):
        super().__init__()
        self.plan, self.network = plan, network
        self.stop_rows = torch.as_tensor(stop_rows)

    @abstractmethod
    def loss(self, rows: Tensor, learning: bool) -> tuple[Tensor, int]:
        """The mean loss of some materials, and over how many numbers it is the mean."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """What learns, each group with its peak rate ``lr``."""

    def training_step(self, rows: Tensor, _: int) -> Tensor:
        loss, count = self.loss(rows.cpu(), learning=True)
        self.log(
            "train", loss, on_step=False, on_epoch=True, batch_size=count, sync_dist=self._shared
        )
        return loss

    def validation_step(self, rows: Tensor, _: int) -> None:
        loss, count = self.loss(rows.cpu(), learning=False)
        self.log(
            "watched", loss, on_step=False, on_epoch=True, batch_size=count, sync_dist=self._shared
        )

    def watched_loss(self) -> float:
        """The loss that early stopping watches, as the network stands."""
        self.network.eval()
        with torch.inference_mode():
            found = [self.loss(rows, learning=False) for rows in self.stop_rows.split(EVAL_BATCH)]
        return sum(float(loss) * count for loss, count in found) / sum(n for _, n in found)

    def epoch_scores(self) -> dict[str, float]:
        """What the history holds of an epoch besides its losses; changes no mode or number."""
        return {}

    def on_train_epoch_start(self) -> None:
        # one seed per epoch: dropout and augmentation survive an interruption
        rank = (self.global_rank,) if self._shared else ()
        torch.manual_seed(self.plan.seed(self.current_epoch, *rank))
        # Lightning keeps the mode that it finds, and whoever looked at features left evaluation
        self.start_learning()

    def start_learning(self) -> None:
        """Put the network into the mode that it learns in."""
        self.network.train()

    def configure_optimizers(self):
        groups = self.parameter_groups()
        # the fastest step, but in mixed precision Lightning clips no gradients before it
        fused = self.trainer.precision == "32-true"
        optimiser = torch.optim.AdamW(groups, weight_decay=self.plan.weight_decay, fused=fused)
        if self.plan.schedule == "constant":
            return optimiser
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = one_cycle(optimiser, steps, 0.2)
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]

    @property
    def _shared(self) -> bool:
        return self.plan.devices > 1


def fit_stage(
    stage: Stage,
    fit_rows: np.ndarray,
    folder: Path | None = None,
    progress: EpochProgress | None = None,
) -> list[dict[str, float]]:
    """Train one stage, or load it if the folder already holds it.

    Leaves the weights of the epoch with the lowest watched loss in ``stage.network``, and returns
    the losses of each epoch. ``progress`` is called with (label, epoch, epochs, watched loss).
    """
    plan = stage.plan
    if folder and (folder / "history.json").exists():
        return _load(stage.network, folder)
    checkpoint = folder / "last.ckpt" if folder else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    best, record = _KeepBest(), _Record(checkpoint, progress)
    callbacks = [best, EarlyStopping("watched", patience=plan.patience), record]
    loaders = (
        _loader(fit_rows, plan.batch_size, plan),
        _loader(stage.stop_rows, EVAL_BATCH),
    )
    resume = str(checkpoint) if checkpoint and checkpoint.exists() else None
    with ExitStack() as stack:
        strategy: str | DDPStrategy = "auto"
        kept = folder
        if plan.devices > 1:
            # processes of their own, so the results come back through files
            kept = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            callbacks.append(_HandOver(best, record, kept))
            strategy = DDPStrategy(start_method="spawn", find_unused_parameters=True)
            # tensors that share memory would be handed over twice as one file descriptor
            sharing = multiprocessing.get_sharing_strategy()
            stack.callback(multiprocessing.set_sharing_strategy, sharing)
            multiprocessing.set_sharing_strategy("file_system")
            if "MASTER_PORT" not in os.environ:  # the next stage finds a free port of its own
                stack.callback(os.environ.pop, "MASTER_PORT", None)
        trainer = L.Trainer(
            max_epochs=plan.epochs,
            accelerator="auto",
            devices=plan.devices,
            strategy=strategy,
            precision=_precision(plan.precision),
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=2.0,
            callbacks=callbacks,
        )
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(stage, *loaders, ckpt_path=resume, weights_only=True if resume else None)
        except SystemExit as stop:  # what Lightning makes of Ctrl-C, deaf to it from then on
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from stop
        if plan.devices > 1:
            history = _load(stage.network, kept)
            if progress:
                progress(plan.label, len(history), plan.epochs, history[-1]["watched"])
        else:
            stage.network.load_state_dict(best.weights)
            history = record.history
            if folder:
                _save(folder, best.weights, history)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return history


def one_cycle(
    optimiser: torch.optim.Optimizer, steps: int, warm_up: float
) -> torch.optim.lr_scheduler.OneCycleLR:
    """The schedule of Smith and Topin (arXiv:1708.07120): up to each group's rate over the fraction
    ``warm_up`` of the steps, then down.
    """
    if warm_up * steps == 1:  # the scheduler would divide by the steps of the way up, none
        steps += 1
    rates = [group["lr"] for group in optimiser.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=steps, pct_start=warm_up
    )


def _save(folder: Path, weights: dict[str, Tensor], history: list[dict[str, float]]) -> None:
    with replacing(folder / "weights.safetensors") as draft:
        save_file({key: value.cpu().contiguous() for key, value in weights.items()}, draft)
    # written last: it says that the stage is finished
    with replacing(folder / "history.json") as draft:
        draft.write_text(json.dumps(history))


def _load(network: nn.Module, folder: Path) -> list[dict[str, float]]:
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return json.loads((folder / "history.json").read_text())


def _precision(wanted: Precision) -> Precision:
    """The precision as Lightning takes it: ``"auto"`` is what the hardware is fast at."""
    if wanted == "16-mixed" and not torch.cuda.is_available():
        raise RhosightError(
            "recipe: hardware.precision: 16-mixed needs a GPU; use auto, or bf16-mixed, which CPUs have"
        )
    if wanted != "auto":
        return wanted
    if not torch.cuda.is_available():
        return "32-true"
    half = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if half else "16-mixed"


class _KeepBest(Callback):
    """The weights of the epoch with the lowest watched loss; they survive in checkpoints."""

    def __init__(self) -> None:
        self.loss, self.weights = float("inf"), {}

    def on_fit_start(self, trainer: L.Trainer, stage: Stage) -> None:
        resumed = bool(self.weights)
        if stage.plan.keeps_start and not resumed:
            self._offer(stage.watched_loss(), stage)

    def on_validation_end(self, trainer: L.Trainer, stage: Stage) -> None:
        self._offer(float(trainer.callback_metrics["watched"]), stage)

    def on_fit_end(self, trainer: L.Trainer, stage: Stage) -> None:
        if not self.weights:
            raise Diverged(f"{stage.plan.label}: the loss is not finite; lower the learning rates")

    def _offer(self, loss: float, stage: Stage) -> None:
        if loss < self.loss:
            self.loss = loss
            self.weights = {k: v.detach().clone() for k, v in stage.network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss, self.weights = state["loss"], state["weights"]


class _Record(Callback):
    """History, progress, and a checkpoint now and then; kept and resumed with the checkpoint."""

    def __init__(self, path: Path | None, progress: EpochProgress | None) -> None:
        self.path, self.progress = path, progress
        self.history: list[dict[str, float]] = []
        self.saved = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, stage: Stage) -> None:
        metrics = {key: float(trainer.callback_metrics[key]) for key in ("train", "watched")}
        scores = stage.epoch_scores()
        self.history.append({"epoch": trainer.current_epoch, **metrics, **scores})
        if self.progress:
            epochs = trainer.max_epochs
            self.progress(stage.plan.label, trainer.current_epoch + 1, epochs, metrics["watched"])
        due = time.monotonic() - self.saved > CHECKPOINT_SECONDS
        if self.path and trainer.strategy.broadcast(due):
            self._checkpoint(trainer)
            self.saved = time.monotonic()

    def _checkpoint(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:  # writes nothing, but the others wait for it
            trainer.save_checkpoint(self.path)
            return
        with replacing(self.path) as draft:
            trainer.save_checkpoint(draft)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state["history"]

    def __getstate__(self) -> dict[str, Any]:
        # to a process of its own, which has no terminal to show progress on
        return self.__dict__ | {"progress": None}


class _HandOver(Callback):
    """Writes down what a stage found, for the process that started the others."""

    def __init__(self, best: _KeepBest, record: _Record, folder: Path) -> None:
        self.best, self.record, self.folder = best, record, folder

    def on_fit_end(self, trainer: L.Trainer, stage: Stage) -> None:
        if trainer.is_global_zero:
            _save(self.folder, self.best.weights, self.record.history)


class _Shuffle(torch.utils.data.Sampler):
    """An order that depends on seed and epoch alone, not on what was drawn before.

    Of several processes each takes its turn in the same order; all get equally many.
    """

    def __init__(self, count: int, plan: Plan):
        self.count, self.plan, self.epoch = count, plan, 0

    def set_epoch(self, epoch: int) -> None:  # Lightning calls it, also after a resume
        self.epoch = epoch

    def __iter__(self):
        seed = hash((hash(self.plan.seeds), self.epoch)) % 2**63
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed)).tolist()
        if self.plan.devices == 1:
            return iter(order)
        rank = torch.distributed.get_rank()
        return iter(order[rank :: self.plan.devices][: len(self)])

    def __len__(self) -> int:
        return self.count // self.plan.devices


def _loader(rows: Sequence[int] | Tensor, size: int, plan: Plan | None = None):
    """Batches of row numbers, shuffled by a plan. In training a last batch of one is left out:
    BatchNorm needs two.
    """
    dataset = torch.as_tensor(np.asarray(rows))
    sampler = _Shuffle(len(dataset), plan) if plan else None
    count = len(sampler) if sampler else len(dataset)
    size = max(2, size // plan.devices) if plan else size
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=min(size, count),
        sampler=sampler,
        drop_last=plan is not None and count % size == 1,
        # else it would draw a number from the global generator, at a time that differs on a resume
        generator=torch.Generator(),
    )


@contextmanager
def quiet_lightning():
    """Lightning's notes on loggers, workers and hardware say nothing to our users."""
    noisy = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in noisy]
    try:
        for log in noisy:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(noisy, levels, strict=True):
            log.setLevel(level)
