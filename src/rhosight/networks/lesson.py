"""The lesson on elements as a low-rank update of the bundled text encoder.

:mod:`rhosight.training.elements` teaches it once; ``make models`` teaches it again. The update of a
layer's weights is the product of two narrow matrices (LoRA, Hu et al. 2021, arXiv:2106.09685),
which takes a few megabytes and is added in a second.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import load

from ..errors import RhosightError
from .backbones import TextBackbone
from .weights import DEFAULT_TEXT

LESSON = Path(str(files("rhosight") / "data" / "lesson.safetensors"))
"""Tensors ``{layer}.down`` (rank, inputs) and ``{layer}.up`` (outputs, rank), float16."""


def lesson_hash(backbone: str) -> str:
    """Return the SHA-256 of a text backbone's lesson; empty if it has none."""
    return _pinned_hash() if backbone == DEFAULT_TEXT else ""


def apply_lesson(encoder: TextBackbone) -> None:
    """Add the lesson to the weights of the bundled text encoder.

    Raises
    ------
    RhosightError
        If the file is missing or not the pinned one.
    """
    data = LESSON.read_bytes() if LESSON.exists() else b""
    if hashlib.sha256(data).hexdigest() != _pinned_hash():
        raise RhosightError(
            f"{LESSON}: not the lesson that comes with this version; install rhosight again"
        )
    tensors = load(data)
    with torch.no_grad():
        for name in sorted({key.rpartition(".")[0] for key in tensors}):
            update = tensors[f"{name}.up"].float() @ tensors[f"{name}.down"].float()
            encoder.model.get_submodule(name).weight += update


@cache
def _pinned_hash() -> str:
    return LESSON.with_suffix(".sha256").read_text(encoding="ascii").split()[0]
