"""The kernel of a Gaussian process as data: which blocks each of its terms looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

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


class Kernel(BaseModel):
    """Of one Gaussian process: what each block adds alone, and what they say together.

    Attributes
    ----------
    alone
        Blocks with a term of their own (radial basis function): what the block adds, whatever the
        others say.
    together
        Blocks of one product (rational quadratic): materials are alike if they are so in all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    alone: tuple[str, ...] = ()
    together: tuple[str, ...] = Field(min_length=1)

    @property
    def terms(self) -> tuple[Term, ...]:
        return (*(Term("rbf", (name,)) for name in self.alone), Term("rational", self.together))
