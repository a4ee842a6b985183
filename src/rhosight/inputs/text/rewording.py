"""Other wordings of a description that say the same: for texts, what turning is for images.

A formula names its elements in some order, a list of bonds has a first one, a bond runs from one
atom to the other. None of this is physics; a language model should learn not to mind.
"""

from __future__ import annotations

import random
import re

_ELEMENT = re.compile(r"[A-Z][a-z]?[\d.]*|[()\[\]].*")
_KEYWORDS = re.compile(r"^(\S+) has (bond lengths|nearest distances) (.*)\.$")
_BOND = re.compile(r"^([A-Z][a-z]?(?:/\S+?)?)-([A-Z][a-z]?(?:/\S+?)?) (\S+) Å \((.*)\)$")
_SENTENCE = re.compile(r"(?<=[.])\s+(?=[A-Z])")


def reword(text: str, number: int) -> str:
    """Wording ``number`` of a text by :func:`rhosight.inputs.text.description.describe`; 0 is the text itself.

    The elements of the formula, the bonds and the two ends of each come in another order; of
    Robocrystallographer's text, or any of several sentences, those after the first two. Same text
    and number, same wording.
    """
    if number == 0:
        return text
    order = random.Random(f"{number} {text}")
    if found := _KEYWORDS.match(text):
        formula, what, bonds = found.groups()
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
    found = _BOND.match(bond)
    if not found or order.random() < 0.5:
        return bond
    one, other, length, counts = found.groups()
    return f"{other}-{one} {length} Å ({', '.join(reversed(counts.split(', ')))})"
