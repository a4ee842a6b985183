"""The kernel of a Gaussian process: a sum of terms over blocks of features.

A block is a table of numbers about each material that belong together: elemental fractions,
statistics of the density, energies … Each block has its own length scale, and the kernel is a sum

    k(x, x′) = Σ_t v_t · s_t( Σ_b d_b(x, x′)² / l_tb² ) + 1

over terms t that each compare some of the blocks b, where d_b² is the mean of the squared
differences of the block's scaled features. A term over one block learns what this block adds
whatever the others say. A term over many blocks multiplies similarities: materials are alike if
they are alike in every respect. The variances v and the lengths l decide how much each of them
matters for a target.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ...errors import RhosightError

Blocks = Mapping[str, pd.DataFrame | np.ndarray]
"""Name → numbers of shape (materials, features of the block), or (materials,)."""

Kind = Literal["rbf", "rational"]

JITTER = 1e-8
"""Added to the diagonal of a kernel of standardised labels, so that it can be factorised."""

NOISE, NOISE_WIDTH = np.log(0.03), 1.5
"""Mean and standard deviation of the prior of the logarithm of the noise, which has a few per cent
of the labels' variance."""


@dataclass(frozen=True)
class Term:
    """One term of the kernel.

    Attributes
    ----------
    kind
        ``rbf``: s(r²) = exp(-r²/2). ``rational``: the rational quadratic (1 + r²/2a)^(-a) with a
        learned shape a, a mixture of many lengths.
    blocks
        Names of the blocks that it compares.
    """

    kind: Kind
    blocks: tuple[str, ...]


class Kernel(BaseModel):
    """Settings of a kernel: the blocks that count alone and those that count together.

    Attributes
    ----------
    alone
        Blocks with a term of their own (radial basis function): what the block adds, whatever the
        others say.
    together
        Blocks of one product (rational quadratic): materials are alike if they are alike in all of
        them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    alone: tuple[str, ...] = ()
    together: tuple[str, ...] = Field(min_length=1)

    @property
    def terms(self) -> tuple[Term, ...]:
        """Return the terms of the kernel."""
        return (*(Term("rbf", (name,)) for name in self.alone), Term("rational", self.together))

    def add(self, blocks: Collection[str]) -> Kernel:
        """Return the kernel with more terms, one for each of these blocks."""
        return Kernel(alone=(*self.alone, *blocks), together=self.together)

    def expand(self, groups: Collection[str], blocks: Collection[str]) -> Kernel:
        """Return the kernel with each name of a group replaced by the group's blocks.

        The blocks of group ``image`` are those whose names begin with ``image-``.
        """

        def list_blocks(names: tuple[str, ...]) -> tuple[str, ...]:
            own: list[str] = []
            for name in names:
                inside = [block for block in blocks if block.startswith(f"{name}-")]
                own += inside if name in groups else [name]
            return tuple(own)

        return Kernel(alone=list_blocks(self.alone), together=list_blocks(self.together))


class KernelFunction:
    """The kernel of the module's docstring as a function of its hyperparameters.

    The hyperparameters are logarithms in one array: for each term its variance, its lengths, and
    its shape if it is rational; the noise, which the kernel does not use, comes last.

    Parameters
    ----------
    terms
        The terms of the sum.

    Raises
    ------
    RhosightError
        If there is no term, or a term has no block or is of an unknown kind.
    """

    def __init__(self, terms: Sequence[Term]):
        self.terms = tuple(terms)
        if not self.terms or not all(term.blocks for term in self.terms):
            raise RhosightError("a kernel needs at least one term, and a term at least one block")
        if unknown := {term.kind for term in self.terms} - {"rbf", "rational"}:
            raise RhosightError(f"unknown kernel {min(unknown)!r}; known are rbf, rational")
        self.blocks = tuple(sorted({name for term in self.terms for name in term.blocks}))

    def layout(self) -> Iterator[tuple[Term, int, slice, int]]:
        """Yield each term with the positions of its variance, lengths and last number."""
        at = 0
        for term in self.terms:
            lengths = slice(at + 1, at + 1 + len(term.blocks))
            end = lengths.stop + (term.kind == "rational")
            yield term, at, lengths, end - 1
            at = end

    def prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the normal prior of the hyperparameters.

        Two materials taken at random have d_b² = 2. Lengths are centred so that all blocks of a
        term together make them exp(-1/4) alike. The terms share the labels' variance, give or take
        an order of magnitude.
        """
        centre: list[float] = []
        width: list[float] = []
        for term in self.terms:
            lengths = [np.log(2 * np.sqrt(len(term.blocks)))] * len(term.blocks)
            shape = [0.0] if term.kind == "rational" else []
            centre += [-np.log(len(self.terms)), *lengths, *shape]
            width += [2.0, *[1.0] * len(lengths + shape)]
        return np.array([*centre, NOISE]), np.array([*width, NOISE_WIDTH])

    def variance(self, parameters: np.ndarray) -> float:
        """Return k(x, x)."""
        return 1 + sum(np.exp(parameters[at]) for _, at, _, _ in self.layout())

    def __call__(self, parameters: Any, distances: Mapping[str, Any], xp: Any = np) -> Any:
        """Evaluate the kernel.

        Parameters
        ----------
        parameters
            The hyperparameters.
        distances
            d_b² for each block, shape (m, n); one row or column may stand for all.
        xp
            The module of the arrays: ``numpy``, or ``torch`` for a result that is differentiable in
            the distances.

        Returns
        -------
        Shape (m, n).
        """
        total: Any = 1.0
        for term, at, lengths, last in self.layout():
            weights = xp.exp(-2 * parameters[lengths])
            r2 = sum(distances[name] * w for name, w in zip(term.blocks, weights, strict=True))
            if term.kind == "rbf":
                log_similarity = -r2 / 2
            else:
                shape = xp.exp(parameters[last])
                log_similarity = -shape * xp.log1p(r2 / (2 * shape))
            total = total + xp.exp(parameters[at] + log_similarity)
        return total

    def pairs_and_gradient(
        self, parameters: np.ndarray, distances: np.ndarray
    ) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Evaluate the kernel for pairs of different materials, and prepare its gradient.

        Parameters
        ----------
        parameters
            The hyperparameters.
        distances
            d_b² of each block of :attr:`blocks`, shape (blocks, pairs).

        Returns
        -------
        values, shape (pairs,), and a function that takes the derivatives of a loss by these values,
        shape (pairs,), and returns those by the hyperparameters, 0 for the noise.
        """
        columns = [[self.blocks.index(name) for name in term.blocks] for term in self.terms]
        weights = np.zeros((len(self.terms), len(self.blocks)))
        for row, column, (_, _, lengths, _) in zip(weights, columns, self.layout(), strict=True):
            np.add.at(row, column, np.exp(-2 * parameters[lengths]))
        radii = weights @ distances
        parts = np.empty_like(radii)
        for part, r2, (term, at, _, last) in zip(parts, radii, self.layout(), strict=True):
            if term.kind == "rbf":
                np.exp(parameters[at] - r2 / 2, out=part)
            else:
                shape = np.exp(parameters[last])
                np.exp(parameters[at] - shape * np.log1p(r2 / (2 * shape)), out=part)

        def gradient(by_values: np.ndarray) -> np.ndarray:
            result = np.zeros(len(parameters))
            slopes = parts * by_values
            for slope, r2, (term, at, _, last) in zip(slopes, radii, self.layout(), strict=True):
                result[at] = slope.sum()
                if term.kind == "rational":
                    shape = np.exp(parameters[last])
                    u = r2 / (2 * shape)
                    result[last] = shape * (slope @ (u / (1 + u) - np.log1p(u)))
                    slope /= 1 + u
            by_weights = slopes @ distances.T
            for row, column, (_, _, lengths, _) in zip(
                by_weights, columns, self.layout(), strict=True
            ):
                result[lengths] = row[column] * np.exp(-2 * parameters[lengths])
            return result

        return 1 + parts.sum(axis=0), gradient


def mean_squares(a: Any, b: np.ndarray) -> Any:
    """Return the mean over features of the squared differences of all rows of a and b.

    0 without features. ``a`` may be a tensor, of which the result is a differentiable function.
    """
    other: Any = b
    if not isinstance(a, np.ndarray):
        import torch

        other = torch.from_numpy(b)
    squares = (a**2).sum(1)[:, None] + (other**2).sum(1) - 2 * a @ other.T
    return squares.clip(0, None) / max(a.shape[1], 1)
