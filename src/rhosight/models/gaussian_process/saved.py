"""Read and check the arrays of a saved Gaussian process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import RhosightError
from ...inputs.scaling import BlockScaler
from ..arrays import take_array
from .posterior import LARGEST_LOG


def read_scaler(arrays: Mapping[str, np.ndarray], block: str) -> BlockScaler:
    """Return the saved scaler of a block."""
    mean = take_array(arrays, f"scaler/{block}/mean", (None,))
    fields = BlockScaler.__dataclass_fields__
    values = {key: take_array(arrays, f"scaler/{block}/{key}", mean.shape) for key in fields}
    if values["width"].min(initial=0) < 0 or values["std"].min(initial=0) < 0:
        raise RhosightError(f"the scaler of {block!r} has a negative width")
    return BlockScaler(**values)


def read_target(
    arrays: Mapping[str, np.ndarray], number: int, materials: int, parameters: int
) -> dict[str, Any]:
    """Return the saved arrays of a target of a process over so many materials."""
    name = f"target/{number}"
    rows = take_array(arrays, f"{name}/rows", (None,), integers=True)
    if not len(rows) or rows.min() < 0 or rows.max() >= materials or (np.diff(rows) <= 0).any():
        raise RhosightError(f"array '{name}/rows' does not list materials of the training set")
    values = {"rows": rows}
    values["labels"] = take_array(arrays, f"{name}/labels", rows.shape)
    values["weights"] = take_array(arrays, f"{name}/weights", rows.shape)
    values["parameters"] = take_array(arrays, f"{name}/parameters", (parameters,))
    if f"{name}/alpha" in arrays:
        values["alpha"] = take_array(arrays, f"{name}/alpha", rows.shape)
    if not (values["weights"] > 0).all() or np.abs(values["parameters"]).max() > 2 * LARGEST_LOG:
        raise RhosightError(f"the weights or hyperparameters of target {number} are out of range")
    return values
