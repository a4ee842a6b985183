"""The package's own table of the elements, and Miedema's model, give what matminer gives."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
from matminer.featurizers.composition import ElementProperty, Miedema
from pymatgen.core import Composition, Element

from rhosight.inputs.descriptors.element_data import compute_magpie, list_magpie_labels
from rhosight.inputs.descriptors.miedema import compute_enthalpies


@pytest.fixture(scope="module")
def formulas() -> list[Composition]:
    """Random formulas of one to five of all elements, in fixed order."""
    rng = random.Random(0)
    symbols = [element.symbol for element in Element if element.symbol not in ("D", "T")]
    drawn = [rng.sample(symbols, 1 + n % 5) for n in range(40)]
    return [Composition({s: rng.randint(1, 7) for s in sorted(part)}) for part in drawn]


def test_magpie(formulas):
    theirs = ElementProperty.from_preset("magpie", impute_nan=True)
    assert list_magpie_labels() == theirs.feature_labels()
    for formula in formulas:
        np.testing.assert_allclose(
            compute_magpie(formula.as_dict()), theirs.featurize(formula), rtol=1e-12, atol=1e-12
        )


def test_miedema(formulas):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Miedema(struct_types="all")
        names = [label.removeprefix("Miedema_deltaH_") for label in theirs.feature_labels()]
        assert names == ["inter", "amor", "ss_min"]
        for formula in formulas:
            shares = formula.fractional_composition.get_el_amt_dict()
            ours = compute_enthalpies(shares)
            np.testing.assert_allclose(ours, theirs.featurize(formula), rtol=1e-9, atol=1e-9)
            assert ours._fields == ("inter", "amorphous", "solution")
