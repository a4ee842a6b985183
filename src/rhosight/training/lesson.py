"""Teach the lesson on elements that comes with the package, as a low-rank update.

    python -m rhosight.training.lesson src/rhosight/data/lesson.safetensors

It takes about an hour on one core, reads no dataset, and is part of ``make models``. The packaged
file serves everybody: :mod:`rhosight.networks.lesson`.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..networks.adapters import LORA_SCALE, add_updates
from ..networks.backbones import TextBackbone
from .elements import learn_elements

STEPS, RANK, RATE, SEED = 2500, 24, 1e-3, 0


def teach_update(steps: int = STEPS, rank: int = RANK, seed: int = SEED) -> dict[str, Tensor]:
    """Teach the bundled text encoder the elements, and return what it has learned.

    Returns
    -------
    For each layer ``{layer}.down`` (rank, inputs) and ``{layer}.up`` (outputs, rank), float16,
    whose product is added to the weights of the layer.
    """
    backbone = TextBackbone()
    backbone.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        add_updates(backbone, rank)
    learn_elements(backbone, steps, seed, _show, RATE)
    tensors: dict[str, Tensor] = {}
    for key, value in backbone.model.state_dict().items():
        layer, _, part = key.partition(".lora_")
        if part.startswith("A."):
            tensors[f"{layer}.down"] = value.half().contiguous()
        elif part.startswith("B."):
            tensors[f"{layer}.up"] = (LORA_SCALE * value).half().contiguous()
    return tensors


def _show(_label: str, step: int, steps: int, loss: float) -> None:
    if step % 50 == 0 or step == steps:
        print(f"step {step} of {steps}: error {loss:.3f}", flush=True)


def main() -> None:
    """Teach the lesson, write it, and pin its SHA-256 beside it."""
    path = Path(sys.argv[1])
    save_file(teach_update(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".sha256").write_text(f"{digest}  {path.name}\n", encoding="ascii")


if __name__ == "__main__":
    main()
