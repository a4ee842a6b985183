"""Processor time and page faults of a training step, with freed memory kept and given back.

>>> OMP_NUM_THREADS=1 python benchmarks/step_memory.py --size 128
"""

from __future__ import annotations

import argparse
import resource
from contextlib import nullcontext

import torch

from rhosight.networks.backbones import ImageBackbone
from rhosight.training.loop import keep_freed_memory


def measure(network: ImageBackbone, images: torch.Tensor, steps: int) -> str:
    """Return seconds and page faults of a step of the image encoder, after one that warms up."""
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4)
    for step in range(steps + 1):
        if step == 1:
            before = resource.getrusage(resource.RUSAGE_SELF)
        network(images).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    after = resource.getrusage(resource.RUSAGE_SELF)
    user, system, faults = (
        (getattr(after, name) - getattr(before, name)) / steps
        for name in ("ru_utime", "ru_stime", "ru_minflt")
    )
    return f"{user:.3f} s user, {system:.3f} s system, {faults:.0f} page faults a step"


def main() -> None:
    """Print both; the second only after the first, whose limits are glibc's own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128, help="pixels of a side")
    parser.add_argument("--steps", type=int, default=8)
    settings = parser.parse_args()
    network = ImageBackbone().train()
    images = torch.randn(16, 3, settings.size, settings.size)
    for name, context in (("given back", nullcontext()), ("kept", keep_freed_memory())):
        with context:
            print(f"{name}: {measure(network, images, settings.steps)}", flush=True)


if __name__ == "__main__":
    main()
