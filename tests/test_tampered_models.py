"""A changed model folder gets a line that says what is wrong, never a traceback or a NaN."""

from __future__ import annotations

import numpy as np
import pytest

from rhosight import RhosightError, load_model
from rhosight.models.folder import MODELS
from tampering import NAMED, copy_model, random_changes


@pytest.fixture(scope="module")
def structure(dataset):
    return dataset["mp-149"].structure


@pytest.mark.parametrize("case", NAMED)
def test_a_tampered_model_is_refused(case, tmp_path, structure):
    folder = copy_model(MODELS / "no-dft", tmp_path / "model")
    NAMED[case](folder)
    with pytest.raises(RhosightError, match=str(folder)) as caught:
        load_model(folder).predict({"Si": structure})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_random_changes_never_give_a_traceback_or_a_nan(tmp_path, structure):
    source = MODELS / "no-dft"
    refused = 0
    for number, (_, change) in enumerate(random_changes(source, 12, seed=0)):
        folder = copy_model(source, tmp_path / str(number))
        change(folder)
        try:
            table = load_model(folder).predict_intervals({"Si": structure})
        except RhosightError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert np.isfinite(table[load_model(folder).targets[0]]).all()
    assert refused > 3


def test_an_untouched_copy_predicts_as_the_original(tmp_path, structure):
    folder = copy_model(MODELS / "no-dft", tmp_path / "model")
    ours, its = (load_model(name).predict({"Si": structure}) for name in (folder, "no-dft"))
    assert (ours == its).all(axis=None)
