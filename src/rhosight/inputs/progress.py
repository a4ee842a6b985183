"""Signatures of the functions that report the progress of a long computation."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a label, the number of finished steps, and the number of all steps."""

EpochProgress = Callable[[str, int, int, float], None]
"""Called with a label, the finished epoch, the number of epochs, and the error of that epoch."""

AnyProgress = Callable[..., None]
"""Called as :data:`Progress`, and as :data:`EpochProgress` while a network trains."""
