"""Find the words of a description and assign tokens to them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from pymatgen.core import Element

# keeps a length with its unit and a count with its "per": the parts mean nothing alone
_CHUNK = re.compile(r"\d[\d.]*(?:-\d[\d.]*)? (?:Å|per [A-Z][a-z]?(?![a-z]))|[^\s,;:()\[\]]+")
_PART = re.compile(r"([A-Z][a-z]?)([\d.]*)")


def find_words(text: str) -> list[tuple[str, int, int]]:
    """Return the words of a description in order: (word, begin, end).

    A formula and a bond ("Hf-C") count as one word for each element with its number. A length with
    its unit is one word, and so is a count of bonds ("4 per In"). All wordings of a description
    (:mod:`rhosight.inputs.text.rewording`) have the same words.
    """
    words = []
    for chunk in _CHUNK.finditer(text):
        word = chunk.group().rstrip(".")
        begin = chunk.start()
        words += _find_elements(word, begin) or [(word, begin, begin + len(word))]
    return [(word, begin, end) for word, begin, end in words if word]


def _find_elements(chunk: str, begin: int) -> list[tuple[str, int, int]]:
    """Return the elements of a formula or bond; empty for other words."""
    elements = []
    for piece in re.finditer(r"[^-]+", chunk):
        parts = list(_PART.finditer(piece.group()))
        if "".join(part.group() for part in parts) != piece.group():
            return []
        if not all(Element.is_valid_symbol(part.group(1)) for part in parts):
            return []
        at = begin + piece.start()
        elements += [(part.group(), at + part.start(), at + part.end()) for part in parts]
    return elements


def count_words(text: str) -> Counter[str]:
    """Return how often each word occurs, in the order of first occurrence."""
    return Counter(word for word, _, _ in find_words(text))


def assign_tokens(text: str, spans: Sequence[tuple[int, int]], words: Sequence[str]) -> np.ndarray:
    """Return the share of each token that belongs to each word.

    Parameters
    ----------
    text
        The text that was tokenised.
    spans
        (begin, end) of each of t tokens in the text; empty spans are special tokens.
    words
        Names of w words.

    Returns
    -------
    Shape (t, w): shares that sum to one over the words, or to zero for punctuation and special
    tokens. A token that covers two words is divided by the number of characters.
    """
    owner = np.full(len(text), len(words))
    number = {word: i for i, word in enumerate(words)}
    for word, begin, end in find_words(text):
        owner[begin:end] = number[word]
    shares = np.zeros((len(spans), len(words)))
    for token, (begin, end) in enumerate(spans):
        counts = np.bincount(owner[begin:end], minlength=len(words) + 1)[:-1]
        shares[token] = counts / max(counts.sum(), 1)
    return shares
