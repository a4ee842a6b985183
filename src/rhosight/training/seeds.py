"""Seeds that are the same for every process, interpreter and machine."""

from __future__ import annotations

_PRIME = 2**61 - 1
_MASK = 2**64 - 1


def combine_seeds(*numbers: int) -> int:
    """Return one number that depends on all numbers and on their order.

    The arithmetic is that of CPython 3.8 and later for the hash of a tuple (xxHash, 64 bits). It is
    written out here because Python does not promise it, and results that were published depend on
    these seeds.

    >>> combine_seeds(0, 3)
    -4734289103435588629
    """
    total = 2870177450012600261
    for number in numbers:
        lane = (-1 if number < 0 else 1) * (abs(number) % _PRIME)
        lane = -2 if lane == -1 else lane
        total = (total + lane * 14029467366897019727) & _MASK
        total = ((total << 31) | (total >> 33)) & _MASK
        total = (total * 11400714785074694791) & _MASK
    total = (total + (len(numbers) ^ (2870177450012600261 ^ 3527539))) & _MASK
    if total == _MASK:
        return 1546275796
    return total - 2**64 if total >= 2**63 else total
