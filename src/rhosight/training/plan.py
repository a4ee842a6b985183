"""Interface of a stage of training: settings, loss, learning rates.

Nothing here imports Lightning: a program that only predicts does not wait for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import RhosightError
from ..networks.settings import Precision
from .seeds import combine_seeds

EVAL_BATCH = 64
"""Batch size without learning."""


class Diverged(RhosightError):
    """The loss of a stage was never a finite number."""


@dataclass(frozen=True)
class Plan:
    """The settings of one stage.

    Attributes
    ----------
    label
        Name of the stage in progress reports.
    seeds
        Seeds of its random numbers; no two stages of a run have the same.
    epochs, batch_size, patience, weight_decay, schedule
        See :class:`rhosight.networks.recipe.Recipe`.
    keeps_start
        Also consider the initial weights when selecting the best epoch.
    precision
        See :class:`rhosight.networks.settings.Hardware`.
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
        """Return a seed from the plan's seeds and more numbers."""
        return combine_seeds(*self.seeds, *more) % 2**63


class Stage(ABC):
    """A stage of training, in which ``network`` learns.

    ``loss`` and ``parameter_groups`` define what it learns and how fast;
    :func:`rhosight.training.loop.fit_stage` runs it.
    """

    def __init__(self, plan: Plan, network: nn.Module, stop_rows: np.ndarray):
        self.plan, self.network = plan, network
        self.stop_rows = torch.as_tensor(stop_rows)

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    @abstractmethod
    def loss(self, rows: Tensor, learning: bool) -> tuple[Tensor, int]:
        """Return the mean loss of some materials, and the count of numbers it averages."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the weights that learn, each group with its peak rate ``lr``."""

    def watched_loss(self) -> float:
        """Return the loss that early stopping watches, with the current weights."""
        self.network.eval()
        with torch.inference_mode():
            losses = [self.loss(rows, learning=False) for rows in self.stop_rows.split(EVAL_BATCH)]
        return sum(float(loss) * count for loss, count in losses) / sum(n for _, n in losses)

    def epoch_scores(self) -> dict[str, float]:
        """Return scores for the history of an epoch, without changing modes or weights."""
        return {}

    def prepare(self) -> None:  # noqa: B027 (most stages have nothing to prepare)
        """Change the network before the first epoch, in each process."""

    def start_learning(self) -> None:
        """Set the training mode of the network."""
        self.network.train()


def one_cycle(
    optimiser: torch.optim.Optimizer, steps: int, warm_up: float
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Return the schedule of Smith and Topin (arXiv:1708.07120).

    Each group's rate rises to its peak over the fraction ``warm_up`` of the steps, then falls.
    """
    if warm_up * steps == 1:  # else the scheduler divides by 0 rising steps
        steps += 1
    rates = [group["lr"] for group in optimiser.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=steps, pct_start=warm_up
    )
