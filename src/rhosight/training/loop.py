"""The training loop of a stage: Lightning, best weights, resumable checkpoints.

A :class:`rhosight.training.plan.Stage` defines what is learned. :func:`fit_stage` runs it, keeps
the best weights and, with a folder, resumes an interrupted run. Random numbers are drawn from the
plan's seeds, epoch by epoch, so an interrupted and resumed run ends with the same weights as an
uninterrupted one.

Lightning takes seconds to import, so this module is imported only by functions that train.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from .batches import make_loader
from .plan import EVAL_BATCH, Diverged, Stage, one_cycle

CHECKPOINT_SECONDS = 60.0
"""Shortest time between two checkpoints."""


def fit_stage(
    stage: Stage,
    fit_rows: np.ndarray,
    folder: Path | None = None,
    progress: EpochProgress | None = None,
) -> list[dict[str, float]]:
    """Train one stage, or load it if the folder already holds it.

    Afterwards ``stage.network`` has the weights of the epoch with the lowest watched loss.

    Parameters
    ----------
    stage
        What is learned.
    fit_rows
        Rows to learn from.
    folder
        Folder of the finished stage and of its checkpoints.
    progress
        Called with (label, epoch, epochs, watched loss).

    Returns
    -------
    The losses of each epoch.
    """
    plan = stage.plan
    if folder and (folder / "history.json").exists():
        return _load(stage.network, folder)
    checkpoint = folder / "last.ckpt" if folder else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    best, record = _KeepBest(), _Record(checkpoint, progress)
    with ExitStack() as stack:
        if plan.devices > 1:
            # processes of their own, so the results come back through files
            shared = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.enter_context(_sharing_by_files())
            _run_trainer(
                stage, fit_rows, [best, record, _HandOver(best, record, shared)], checkpoint
            )
            history = _load(stage.network, shared)
            if progress:
                progress(plan.label, len(history), plan.epochs, history[-1]["watched"])
        else:
            _run_trainer(stage, fit_rows, [best, record], checkpoint)
            stage.network.load_state_dict(best.weights)
            history = record.history
            if folder:
                _save(folder, best.weights, history)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return history


def _run_trainer(
    stage: Stage, fit_rows: np.ndarray, callbacks: list[Callback], checkpoint: Path | None
) -> None:
    """Run Lightning's trainer on a stage, from its checkpoint if there is one."""
    plan = stage.plan
    strategy: str | DDPStrategy = "auto"
    if plan.devices > 1:
        strategy = DDPStrategy(start_method="spawn", find_unused_parameters=True)
    best, *others = callbacks
    trainer = L.Trainer(
        max_epochs=plan.epochs,
        accelerator="auto",
        devices=plan.devices,
        strategy=strategy,
        precision=_resolve_precision(plan.precision),
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=2.0,
        callbacks=[best, EarlyStopping("watched", patience=plan.patience), *others],
    )
    loaders = (
        make_loader(fit_rows, plan.batch_size, plan.seeds, plan.devices),
        make_loader(stage.stop_rows, EVAL_BATCH),
    )
    resume = str(checkpoint) if checkpoint and checkpoint.exists() else None
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(
            _Module(stage), *loaders, ckpt_path=resume, weights_only=True if resume else None
        )
    except SystemExit as stop:  # Lightning turns Ctrl-C into it, and ignores the next ones
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from stop


@contextmanager
def _sharing_by_files() -> Iterator[None]:
    """Let processes share tensors through files, and find a free port for each stage."""
    # tensors that share memory would otherwise be passed twice as one file descriptor
    sharing = multiprocessing.get_sharing_strategy()
    has_port = "MASTER_PORT" in os.environ
    multiprocessing.set_sharing_strategy("file_system")
    try:
        yield
    finally:
        multiprocessing.set_sharing_strategy(sharing)
        if not has_port:
            os.environ.pop("MASTER_PORT", None)


def _save(folder: Path, weights: dict[str, Tensor], history: list[dict[str, float]]) -> None:
    with replacing(folder / "weights.safetensors") as draft:
        save_file({key: value.cpu().contiguous() for key, value in weights.items()}, draft)
    # written last: it marks a finished stage
    with replacing(folder / "history.json") as draft:
        draft.write_text(json.dumps(history))


def _load(network: nn.Module, folder: Path) -> list[dict[str, float]]:
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return json.loads((folder / "history.json").read_text())


def _resolve_precision(
    wanted: Precision,
) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Return the precision for Lightning; ``"auto"`` becomes the hardware's fast one."""
    if wanted == "16-mixed" and not torch.cuda.is_available():
        raise RhosightError(
            "recipe: hardware.precision: 16-mixed needs a GPU; use auto, or bf16-mixed, which CPUs "
            "support"
        )
    if wanted != "auto":
        return wanted
    if not torch.cuda.is_available():
        return "32-true"
    half = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if half else "16-mixed"


class _Module(L.LightningModule):
    """A stage as Lightning wants it."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.stage, self.network = stage, stage.network
        self.is_shared = stage.plan.devices > 1

    def setup(self, stage: str) -> None:
        self.stage.prepare()

    def training_step(self, rows: Tensor, _: int) -> Tensor:
        return self._log_loss("train", rows, learning=True)

    def validation_step(self, rows: Tensor, _: int) -> None:
        self._log_loss("watched", rows, learning=False)

    def _log_loss(self, name: str, rows: Tensor, learning: bool) -> Tensor:
        loss, count = self.stage.loss(rows.cpu(), learning)
        self.log(
            name, loss, on_step=False, on_epoch=True, batch_size=count, sync_dist=self.is_shared
        )
        return loss

    def on_train_epoch_start(self) -> None:
        # one seed per epoch: dropout and augmentation are the same after an interruption
        rank = (self.global_rank,) if self.is_shared else ()
        torch.manual_seed(self.stage.plan.seed(self.current_epoch, *rank))
        # Lightning keeps the current mode, which is evaluation after features were computed
        self.stage.start_learning()

    def configure_optimizers(self) -> Any:
        """Return AdamW with the plan's schedule."""
        plan = self.stage.plan
        groups = self.stage.parameter_groups()
        # the fastest step; but Lightning does not clip gradients before it in mixed precision
        fused = self.trainer.precision == "32-true"
        optimiser = torch.optim.AdamW(groups, weight_decay=plan.weight_decay, fused=fused)
        if plan.schedule == "constant":
            return optimiser
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = one_cycle(optimiser, steps, 0.2)
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]


class _KeepBest(Callback):
    """Keep the weights of the epoch with the lowest watched loss, also in checkpoints."""

    def __init__(self) -> None:
        self.loss = float("inf")
        self.weights: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, _Module)
        resumed = bool(self.weights)
        if module.stage.plan.keeps_start and not resumed:
            self._offer(module.stage.watched_loss(), module.stage)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, _Module)
        self._offer(float(trainer.callback_metrics["watched"]), module.stage)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, _Module)
        if not self.weights:
            label = module.stage.plan.label
            raise Diverged(f"{label}: the loss is not finite; lower the learning rates")

    def _offer(self, loss: float, stage: Stage) -> None:
        if loss < self.loss:
            self.loss = loss
            self.weights = {k: v.detach().clone() for k, v in stage.network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss, self.weights = state["loss"], state["weights"]


class _Record(Callback):
    """Record the history, report progress, and write a checkpoint from time to time."""

    def __init__(self, path: Path | None, progress: EpochProgress | None) -> None:
        self.path, self.progress = path, progress
        self.history: list[dict[str, float]] = []
        self.saved = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, _Module)
        metrics = {key: float(trainer.callback_metrics[key]) for key in ("train", "watched")}
        scores = module.stage.epoch_scores()
        self.history.append({"epoch": trainer.current_epoch, **metrics, **scores})
        if self.progress:
            done, plan = trainer.current_epoch + 1, module.stage.plan
            self.progress(plan.label, done, plan.epochs, metrics["watched"])
        due = time.monotonic() - self.saved > CHECKPOINT_SECONDS
        if self.path and trainer.strategy.broadcast(due):
            self._checkpoint(trainer)
            self.saved = time.monotonic()

    def _checkpoint(self, trainer: L.Trainer) -> None:
        assert self.path is not None
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
        # sent to a process of its own, which has no terminal
        return self.__dict__ | {"progress": None}


class _HandOver(Callback):
    """Save the result of a stage for the process that started the others."""

    def __init__(self, best: _KeepBest, record: _Record, folder: Path) -> None:
        self.best, self.record, self.folder = best, record, folder

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            _save(self.folder, self.best.weights, self.record.history)


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let the C library keep what a step of training frees for the next one.

    glibc returns large blocks to the system; a seventh of a step is spent to get them back. The
    memory is returned at the end, with the limits that glibc itself comes to with such blocks.
    Other C libraries are left as they are.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # malloc.h
    libc.mallopt(mmap_threshold, 2**25)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(mmap_max, 2**16)
        libc.mallopt(trim_threshold, 2**26)
        libc.malloc_trim(0)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's notes on loggers, workers and hardware."""
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
