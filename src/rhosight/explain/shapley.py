"""Compute exact Shapley values of a few players and select their background."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from math import factorial

import numpy as np

MOST_PLAYERS = 8
"""Largest number of players; 2⁸ coalitions are then evaluated."""


def select_rows(count: int, most: int) -> np.ndarray:
    """Return all ``count`` rows of a background, or a fixed sample of ``most``."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def describe_background(used: int, available: int, what: str) -> str:
    """Return a sentence that names the materials of the background."""
    number = str(used) if used == available else f"{used} of the {available}"
    return f"mean over {number} {what} materials"


def shapley_values(
    value: Callable[[Collection[str]], np.ndarray], players: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact Shapley values of a game.

    Shapley 1953, doi:10.1515/9781400881970-018.

    Parameters
    ----------
    value
        Coalition, a set of players → its value, shape (targets,).
    players
        p names, at most :data:`MOST_PLAYERS`.

    Returns
    -------
    base, shape (targets,): the value of the empty coalition; shares, shape (p, targets): each
    player's gain, averaged over all orders in which the players may join. Base and shares sum to
    the value of the full coalition.

    Raises
    ------
    ValueError
        If there are more than :data:`MOST_PLAYERS` players.
    """
    count = len(players)
    if count > MOST_PLAYERS:
        raise ValueError(f"{count} players are too many for exact Shapley values")
    values = {
        frozenset(some): np.asarray(value(frozenset(some)), dtype=float)
        for size in range(count + 1)
        for some in combinations(players, size)
    }
    shares = []
    for player in players:
        share = 0.0
        for some, reached in values.items():
            if player not in some:
                orders = factorial(len(some)) * factorial(count - len(some) - 1)
                share = share + orders * (values[some | {player}] - reached)
        shares.append(share / factorial(count))
    return values[frozenset()], np.array(shares)
