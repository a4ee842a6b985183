"""The mean of several Gaussian processes.

The blocks that a target needs are not known beforehand. A kernel over few blocks misses something;
one over many has more hyperparameters than a few hundred labels determine. The errors of the two
differ, so their mean is better than either.

>>> members = [GaussianProcess(kernel.terms) for kernel in (lean, full)]
>>> model = Committee(members).fit(blocks, y)
>>> mean, std = model.predict(new_blocks, return_std=True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ...errors import RhosightError
from .kernel import Blocks
from .process import GaussianProcess

FEW = 1000
"""Materials below which one thread fits faster: several wait for each other at small matrices."""


class Committee:
    """The mean of Gaussian processes with equal weights.

    Parameters
    ----------
    members
        Gaussian processes with kernels of their own.
    """

    def __init__(self, members: Sequence[GaussianProcess]):
        self.members = tuple(members)
        if not self.members:
            raise RhosightError("a committee needs at least one member")

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return the names of the blocks that any member reads, sorted."""
        return tuple(sorted({name for member in self.members for name in member.blocks}))

    def fit(self, blocks: Blocks, y: np.ndarray | pd.DataFrame) -> Self:
        """Fit each member, see :meth:`GaussianProcess.fit`."""
        with threadpool_limits(1 if len(y) < FEW else None, "blas"):
            for member in self.members:
                member.fit(blocks, y)
        return self

    def predict(
        self, blocks: Blocks, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Predict m materials, see :meth:`GaussianProcess.predict`.

        The standard deviation is that of the mixture of the members' distributions: it includes
        their disagreement.
        """
        mean, std = self.predict_with_std(blocks)
        return (mean, std) if return_std else mean

    def predict_with_std(self, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
        """Predict mean and standard deviation, see :meth:`predict`."""
        return _mix([member.predict_with_std(blocks) for member in self.members])

    def leave_out(self, groups: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Predict each training material from other groups.

        See :meth:`GaussianProcess.leave_out`.
        """
        return _mix([member.leave_out(groups) for member in self.members])

    def leave_one_out_errors(self, column: int) -> np.ndarray:
        """Return predictions of each material from all others, minus the labels.

        See :meth:`GaussianProcess.leave_one_out_errors`.
        """
        return np.mean([member.leave_one_out_errors(column) for member in self.members], axis=0)

    def label_scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each target's training labels, (targets,)."""
        return self.members[0].label_scales()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state that belongs in a file of arrays, such as safetensors."""
        return {
            f"member/{number}/{name}": array
            for number, member in enumerate(self.members)
            for name, array in member.arrays().items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the rest of the state, for JSON."""
        return {"members": [member.to_dict() for member in self.members]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild the committee that :meth:`to_dict` and :meth:`arrays` describe."""
        members = []
        for number, rest in enumerate(state["members"]):
            prefix = f"member/{number}/"
            own = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
            members.append(GaussianProcess.from_state(rest, own))
        return cls(members)


def _mix(predictions: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of an equally weighted mixture."""
    means, stds = (np.stack(values) for values in zip(*predictions, strict=True))
    with np.errstate(over="ignore"):  # of a damaged model, whose predictions are then refused
        return means.mean(axis=0), np.sqrt((stds**2).mean(axis=0) + means.var(axis=0))
