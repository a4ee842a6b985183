"""Batches of row numbers in an order that survives interruptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .seeds import combine_seeds


class Shuffle(torch.utils.data.Sampler):
    """An order that depends on seeds and epoch alone, not on earlier random numbers.

    Several processes take turns in the same order, and all get equally many rows.

    Parameters
    ----------
    count
        Number of rows.
    seeds
        Seeds of the stage.
    devices
        Number of processes.
    """

    def __init__(self, count: int, seeds: tuple[int, ...], devices: int):
        self.count, self.seeds, self.devices, self.epoch = count, seeds, devices, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this, also after a resume."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        seed = combine_seeds(combine_seeds(*self.seeds), self.epoch) % 2**63
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed)).tolist()
        if self.devices == 1:
            return iter(order)
        rank = torch.distributed.get_rank()
        return iter(order[rank :: self.devices][: len(self)])

    def __len__(self) -> int:
        return self.count // self.devices


def make_loader(
    rows: np.ndarray | Tensor, size: int, seeds: tuple[int, ...] | None = None, devices: int = 1
) -> torch.utils.data.DataLoader:
    """Return batches of row numbers, shuffled if there are seeds.

    In training a last batch of one row is left out, because BatchNorm needs two.
    """
    dataset: Any = torch.as_tensor(np.asarray(rows))  # a tensor serves as a dataset
    sampler = None if seeds is None else Shuffle(len(dataset), seeds, devices)
    count = len(dataset) if sampler is None else len(sampler)
    size = size if sampler is None else max(2, size // devices)
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=min(size, count),
        sampler=sampler,
        drop_last=sampler is not None and count % size == 1,
        # without it, it draws from the global generator, at another time after a resume
        generator=torch.Generator(),
    )
