"""Equivalent wordings of a description, for the augmentation of texts.

The order of the elements in a formula, of the bonds in a list and of the two atoms of a bond is
arbitrary. With several wordings a language model learns to ignore it.
"""

from __future__ import annotations

import random
import re

_ELEMENT = re.compile(r"[A-Z][a-z]?[\d.]*|[()\[\]].*")
_KEYWORDS = re.compile(r"^(\S+) has (bond lengths|nearest distances) (.*)\.$")
_BOND = re.compile(r"^([A-Z][a-z]?(?:/\S+?)?)-([A-Z][a-z]?(?:/\S+?)?) (\S+) Å \((.*)\)$")
_SENTENCE = re.compile(r"(?<=[.])\s+(?=[A-Z])")


def reword(text: str, number: int) -> str:
    """Return one of the equivalent wordings of a description.

    The elements of the formula, the bonds and the two ends of each bond are permuted. In a text of
    several sentences, such as Robocrystallographer's, the sentences after the first two are
    permuted. The same text and number give the same wording.

    Parameters
    ----------
    text
        As :func:`rhosight.inputs.text.description.describe` writes it.
    number
        0 is the text itself.
    """
    if number == 0:
        return text
    order = random.Random(f"{number} {text}")
    if parts := _KEYWORDS.match(text):
        formula, what, bonds = parts.groups()
        phrases = [_reword_bond(bond, order) for bond in bonds.split("; ")]
        order.shuffle(phrases)
        return f"{_reword_formula(formula, order)} has {what} {'; '.join(phrases)}."
    if " " not in text:
        return _reword_formula(text, order)
    sentences = _SENTENCE.split(text)
    rest = sentences[2:]
    order.shuffle(rest)
    return " ".join(sentences[:2] + rest)


def _reword_formula(formula: str, order: random.Random) -> str:
    parts = _ELEMENT.findall(formula)
    if "".join(parts) != formula or any(part[0] in "([" for part in parts):
        return formula  # groups in brackets belong together
    order.shuffle(parts)
    return "".join(parts)


def _reword_bond(bond: str, order: random.Random) -> str:
    parts = _BOND.match(bond)
    if not parts or order.random() < 0.5:
        return bond
    one, other, length, counts = parts.groups()
    return f"{other}-{one} {length} Å ({', '.join(reversed(counts.split(', ')))})"
