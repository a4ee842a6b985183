"""Train density networks on the points of some crystals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..inputs.progress import Progress
from ..training.plan import one_cycle
from .examples import Examples
from .network import DensityNetwork

STORED = 25
"""Steps whose points are gathered in one go."""


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training of one network.

    Attributes
    ----------
    steps, batch
        Optimisation steps, and points in each.
    learning_rate, weight_decay
        AdamW's; the learning rate follows one cycle.
    unknown
        Share of sites whose element counts as unknown, so that the network can do without.
    members
        Networks that are trained without the same fold. All networks predict new crystals.
    """

    steps: int = 1400
    batch: int = 768
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    unknown: float = 0.1
    members: int = 3


def train_network(
    examples: Examples,
    crystals: Sequence[int] | np.ndarray,
    settings: TrainingSettings,
    seed: int,
    progress: Progress | None = None,
) -> DensityNetwork:
    """Train one network on the points of some crystals.

    The loss is the mean over crystals of ∫|ρ − ρ̂| relative to their electrons: points are drawn in
    proportion to their volume over the electrons of their crystal.
    """
    torch.manual_seed(seed)
    # radial functions have long tails: arithmetic with denormal numbers takes five times as long
    torch.set_flush_denormal(True)
    draw = np.random.default_rng(seed)
    rows = examples.points_of(crystals)
    weights = examples.volume[rows] / examples.electrons[examples.crystal[rows]]
    ladder = np.cumsum(weights) / weights.sum()
    network = DensityNetwork(examples.local.shape[1], examples.site_features.shape[1])
    used = torch.unique(examples.which[rows])
    network.standardise(examples.local[rows], examples.site_features[used])
    network.forget_elements(examples.elements[used])
    optimiser = torch.optim.AdamW(
        network.parameters(),
        settings.learning_rate,
        (0.9, 0.99),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    schedule = one_cycle(optimiser, settings.steps, 0.1)
    unit = float(weights @ np.abs(examples.difference[rows]) / weights.sum())
    running = 1.0
    for step in range(settings.steps):
        if step % STORED == 0:
            drawn = np.searchsorted(ladder, draw.random(STORED * settings.batch) * ladder[-1])
            points = _gather(examples, rows[drawn])
        part = slice(step % STORED * settings.batch, (step % STORED + 1) * settings.batch)
        known = (torch.rand(len(examples.elements)) >= settings.unknown).float()
        *inputs, target = (values[part] for values in points)
        local, sites, which, valence = inputs
        predicted = network(
            local, sites, which, examples.site_features, examples.elements, valence, known
        )
        loss = (predicted - target).abs().mean() / unit
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        running += 0.02 * (loss.item() - running)
        if progress:
            progress(f"loss {running:.3f}", step + 1, settings.steps)
    with torch.no_grad():  # the saved model has half precision
        for weights in network.parameters():
            weights.copy_(weights.half().float())
    torch.set_flush_denormal(False)
    return network.eval()


def _gather(examples: Examples, index: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Return features and targets of points in one piece of memory."""
    where = torch.from_numpy(index)
    target = torch.from_numpy(examples.difference)
    values = (examples.local, examples.sites, examples.which, examples.valence, target)
    return tuple(column[where] for column in values)


def predict_mean(
    networks: Sequence[DensityNetwork], examples: Examples, rows: np.ndarray
) -> np.ndarray:
    """Return the mean of the networks' predicted differences at some points, e/Å³."""
    return np.mean([predict_points(network, examples, rows) for network in networks], axis=0)


@torch.inference_mode()
def predict_points(
    network: DensityNetwork, examples: Examples, rows: np.ndarray, batch: int = 8192
) -> np.ndarray:
    """Return the predicted difference at some points, e/Å³."""
    parts = []
    for start in range(0, len(rows), batch):
        index = torch.from_numpy(rows[start : start + batch])
        parts.append(
            network(
                examples.local[index],
                examples.sites[index],
                examples.which[index],
                examples.site_features,
                examples.elements,
                examples.valence[index],
            )
        )
    return torch.cat(parts).numpy()
