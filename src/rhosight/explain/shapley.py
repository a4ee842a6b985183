"""Shapley values of a few players, exactly."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from math import factorial

import numpy as np

MOST_PLAYERS = 8
"""2⁸ coalitions are evaluated at most."""


def shapley_values(
    value: Callable[[Collection[str]], np.ndarray], players: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Share among players what they reach together (Shapley 1953, doi:10.1515/9781400881970-018).

    Parameters
    ----------
    value
        Coalition, a set of players → what it reaches, shape (targets,).
    players
        p names, at most :data:`MOST_PLAYERS`.

    Returns
    -------
    base, shape (targets,): the value of nobody; shares, shape (p, targets): each player's gain,
    averaged over all orders in which players may join. Base and shares sum to the value of all.
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
