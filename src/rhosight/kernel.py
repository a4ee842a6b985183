"""The kernel of a Gaussian process, in words: which blocks each of its terms looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

Blocks = Mapping[str, pd.DataFrame | np.ndarray]
"""Name → numbers of shape (materials, features of the block), or (materials,)."""

Kind = Literal["rbf", "rational"]


@dataclass(frozen=True)
class Term:
    """One term of the kernel.

    Attributes
    ----------
    kind
        ``rbf``: s(r²) = exp(-r²/2). ``rational``: the rational quadratic (1 + r²/2a)^(-a) with a
        shape a that is learned: a mixture of many lengths.
    blocks
        Names of the blocks that it looks at.
    """

    kind: Kind
    blocks: tuple[str, ...]


def sum_and_product(blocks: Sequence[str] | Blocks) -> tuple[Term, ...]:
    """An RBF term for each block, and a rational one over all.

    Parameters
    ----------
    blocks
        Names, or blocks with them as their keys; their order does not matter.
    """
    names = tuple(sorted(blocks))
    return (*(Term("rbf", (name,)) for name in names), Term("rational", names))
