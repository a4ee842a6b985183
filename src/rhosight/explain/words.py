"""The words of a description, and how tokens share what they matter among them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from pymatgen.core import Element

# a length with its unit and a count with its "per" mean nothing apart
_CHUNK = re.compile(r"\d[\d.]*(?:-\d[\d.]*)? (?:Å|per [A-Z][a-z]?(?![a-z]))|[^\s,;:()\[\]]+")
_PART = re.compile(r"([A-Z][a-z]?)([\d.]*)")


def words_of(text: str) -> list[tuple[str, int, int]]:
    """The words of a text by :func:`rhosight.inputs.text.description.describe`: (word, begin, end) in order.

    A formula and a bond ("Hf-C") are as many words as they have elements, each with its number; a
    length with its unit, and a count of bonds ("4 per In"), are one. Other wordings of a text
    (:mod:`rhosight.inputs.text.rewording`) have the same words.
    """
    found = []
    for chunk in _CHUNK.finditer(text):
        word = chunk.group().rstrip(".")
        begin = chunk.start()
        found += _elements(word, begin) or [(word, begin, begin + len(word))]
    return [(word, begin, end) for word, begin, end in found if word]


def _elements(chunk: str, begin: int) -> list[tuple[str, int, int]]:
    """The elements of a formula or a bond with their numbers; none if it is neither."""
    found = []
    for piece in re.finditer(r"[^-]+", chunk):
        parts = list(_PART.finditer(piece.group()))
        if "".join(part.group() for part in parts) != piece.group():
            return []
        if not all(Element.is_valid_symbol(part.group(1)) for part in parts):
            return []
        at = begin + piece.start()
        found += [(part.group(), at + part.start(), at + part.end()) for part in parts]
    return found


def word_counts(text: str) -> Counter[str]:
    """How often each word stands in a text, in the order of first appearance."""
    return Counter(word for word, _, _ in words_of(text))


def word_shares(text: str, spans: Sequence[tuple[int, int]], words: Sequence[str]) -> np.ndarray:
    """Which word each token belongs to.

    Parameters
    ----------
    text
        What was tokenised.
    spans
        (begin, end) of each of t tokens in the text; empty ones are special tokens.
    words
        Names of w words.

    Returns
    -------
    Shape (t, w): shares that sum to one over the words, or to zero for punctuation and special
    tokens. A token across two words is shared by the number of characters.
    """
    owner = np.full(len(text), len(words))
    number = {word: i for i, word in enumerate(words)}
    for word, begin, end in words_of(text):
        owner[begin:end] = number[word]
    shares = np.zeros((len(spans), len(words)))
    for token, (begin, end) in enumerate(spans):
        counts = np.bincount(owner[begin:end], minlength=len(words) + 1)[:-1]
        shares[token] = counts / max(counts.sum(), 1)
    return shares
