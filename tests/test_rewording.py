"""Other wordings say the same."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from rhosight.dataset import Dataset
from rhosight.inputs.text.rewording import reword


def _words(text: str) -> Counter[str]:
    """Elements with their numbers, lengths and words; a bond reads the same from either end."""
    text = re.sub(r"\b([A-Z][a-z]?)-([A-Z][a-z]?)\b", lambda m: "~".join(sorted(m.groups())), text)
    head, _, rest = text.partition(" ")
    return Counter(re.findall(r"[A-Z][a-z]?[\d.]*", head)) + Counter(
        re.findall(r"[\w~.-]+\d|\w+", rest)
    )


@pytest.mark.parametrize("extent", ["formula", "keywords"])
def test_every_wording_has_the_same_words(dataset: Dataset, extent: str) -> None:
    for text in dataset.texts[extent]:
        for number in range(4):
            assert _words(reword(text, number)) == _words(text), text


def test_sentences_of_all_are_kept(dataset: Dataset) -> None:
    for text in dataset.texts["all"][::20]:
        assert sorted(reword(text, 3)) == sorted(text)


def test_wordings_differ_and_are_reproducible(dataset: Dataset) -> None:
    compounds = [t for t in dataset.texts["keywords"] if ";" in t]
    assert len(compounds) > 100
    several = [len({reword(text, number) for number in range(8)}) for text in compounds]
    assert min(several) > 1 and sum(several) / len(several) > 4
    assert all(reword(text, 0) == text for text in compounds)
    assert [reword(t, 5) for t in compounds] == [reword(t, 5) for t in compounds]


def test_a_bond_and_its_counts_turn_together() -> None:
    text = "CaF2 has bond lengths Ca-F 2.39 Å (8 per Ca, 4 per F)."
    wordings = {reword(text, number).partition("lengths ")[2] for number in range(20)}
    assert wordings == {
        "Ca-F 2.39 Å (8 per Ca, 4 per F).",
        "F-Ca 2.39 Å (4 per F, 8 per Ca).",
    }


def test_groups_in_brackets_stay_together() -> None:
    assert {reword("Ca3(PO4)2", number) for number in range(9)} == {"Ca3(PO4)2"}
