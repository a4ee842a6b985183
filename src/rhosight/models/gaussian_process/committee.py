"""Several Gaussian processes that answer together.

Which blocks a target needs is not known beforehand. A kernel over few blocks misses something; one
over many has hyper-parameters that a few hundred labels do not settle. Their errors differ, so that
the mean of both is better than either.

>>> members = [GaussianProcess(kernel.terms) for kernel in (lean, full)]
>>> model = Committee(members).fit(blocks, y)
>>> mean, std = model.predict(new_blocks, return_std=True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from ...errors import RhosightError
from .kernel import Blocks
from .process import GaussianProcess


class Committee:
    """The mean of its members, which all count alike; no weight is learned.

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
        """Names of the blocks that any member looks at, sorted."""
        return tuple(sorted({name for member in self.members for name in member.blocks}))

    def fit(self, blocks: Blocks, y: np.ndarray | pd.DataFrame) -> Self:
        """Fit each member, see :meth:`GaussianProcess.fit`."""
        for member in self.members:
            member.fit(blocks, y)
        return self

    def predict(
        self, blocks: Blocks, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Predict m materials, see :meth:`GaussianProcess.predict`.

        The standard deviation is that of the mixture of the members' distributions: what they are
        unsure of, and what they disagree about.
        """
        if not return_std:
            return np.mean([member.predict(blocks) for member in self.members], axis=0)
        return _mixture([member.predict(blocks, return_std=True) for member in self.members])

    def leave_one_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, see :meth:`GaussianProcess.leave_one_out`."""
        return _mixture([member.leave_one_out() for member in self.members])

    def label_scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the labels of each target, see
        :meth:`GaussianProcess.label_scales`.
        """
        return self.members[0].label_scales()

    def arrays(self) -> dict[str, np.ndarray]:
        """The part of the state that belongs in a file of arrays, such as safetensors."""
        return {
            f"member/{number}/{name}": array
            for number, member in enumerate(self.members)
            for name, array in member.arrays().items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The rest of the state, for JSON."""
        return {"members": [member.to_dict() for member in self.members]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """From what :meth:`to_dict` and :meth:`arrays` gave: predicts as the model did."""
        members = []
        for number, rest in enumerate(state["members"]):
            prefix = f"member/{number}/"
            own = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
            members.append(GaussianProcess.from_state(rest, own))
        return cls(members)


def _mixture(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a mixture of distributions, all with the same weight."""
    means, stds = (np.stack(values) for values in zip(*found, strict=True))
    return means.mean(axis=0), np.sqrt((stds**2).mean(axis=0) + means.var(axis=0))
