"""Pre-training of the text backbone on the elements' properties."""

import numpy as np
import pytest
import torch
from matminer.featurizers.composition import ElementProperty
from pymatgen.core import Composition

from rhosight import Recipe, cross_validate
from rhosight.inputs.text.description import describe
from rhosight.inputs.text.rewording import reword
from rhosight.networks.backbones import TextBackbone
from rhosight.networks.lesson import apply_lesson
from rhosight.networks.weights import DEFAULT_TEXT
from rhosight.training.elements import compute_facts, learn_elements, make_up

pytestmark = pytest.mark.usefixtures("small_forests")


def test_made_up_crystals_read_like_descriptions(dataset):
    """Same grammar: rewording, which takes real descriptions apart, knows it."""
    real = describe(dataset["mp-149"].structure, "keywords")
    for crystal in make_up(50, seed=1):
        assert crystal.text.split(" ", 1)[1].startswith("has bond lengths ")
        assert Composition(crystal.text.split()[0]) == Composition(crystal.amounts)
        assert reword(crystal.text, 1).endswith(real[-1])
        for length in crystal.lengths:
            assert f" {length:.2f} Å (" in crystal.text
    many = [crystal for crystal in make_up(50, seed=1) if len(crystal.lengths) > 1]
    assert any(reword(crystal.text, 2) != crystal.text for crystal in many)


def test_they_are_the_same_for_a_seed_and_cover_the_elements():
    assert make_up(20, seed=3) == make_up(20, seed=3)
    assert make_up(20, seed=3) != make_up(20, seed=4)
    drawn = {symbol for crystal in make_up(600, seed=0) for symbol in crystal.amounts}
    assert {"H", "Fe", "La", "Bi"} <= drawn
    assert not drawn & {"He", "Xe", "Po", "U"}


def test_facts_are_magpies_statistics():
    """Means over atoms follow matminer's own, up to scale and origin, over many crystals."""
    crystals = make_up(60, seed=5)
    magpie = ElementProperty.from_preset("magpie", impute_nan=True)
    label = magpie.feature_labels().index("MagpieData mean Electronegativity")
    theirs = [magpie.featurize(Composition(c.amounts))[label] for c in crystals]
    ours = compute_facts(crystals)[:, magpie.features.index("Electronegativity")]
    assert np.corrcoef(ours, theirs)[0, 1] > 1 - 1e-9
    assert np.isfinite(compute_facts(crystals)).all()


def test_a_backbone_learns_the_elements(checkpoints):
    """Errors fall, on descriptions that it meets for the first time."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    backbone, losses = TextBackbone(checkpoints["text"]), []
    learn_elements(backbone, 120, 0, lambda _label, _step, _steps, loss: losses.append(loss), 1e-3)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(losses) == 120
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:3])
    assert not backbone.training


def test_what_the_bundled_lesson_taught_is_there_for_real_texts(dataset):
    """Electronegativity is easier to read off features after it than off those before."""
    taught = TextBackbone()
    apply_lesson(taught)
    texts = [dataset.texts["keywords"].iloc[i] for i in range(0, 405, 4)]
    wanted = [
        np.mean([e.X for e in dataset.structures[i].composition.elements]) for i in range(0, 405, 4)
    ]

    def readable(backbone: TextBackbone) -> float:
        with torch.inference_mode():
            features = backbone(*backbone.tokenize(texts)).numpy()
        features = (features - features.mean(0)) / (features.std(0) + 1e-6)
        kernel = features @ features.T / features.shape[1]
        learn, test = np.arange(len(texts)) % 2 == 0, np.arange(len(texts)) % 2 == 1
        y = np.array(wanted) - np.mean(np.array(wanted)[learn])
        ridge = kernel[np.ix_(learn, learn)] + 0.1 * np.eye(learn.sum())
        guess = kernel[np.ix_(test, learn)] @ np.linalg.solve(ridge, y[learn])
        return 1 - np.sum((y[test] - guess) ** 2) / np.sum(y[test] ** 2)

    assert readable(taught) > readable(TextBackbone()) + 0.05


@pytest.mark.slow
def test_training_begins_with_it_once_for_all_folds(dataset, checkpoints):
    """The recipe's steps are taken before the head stage, whose features they change.

    The bundled encoder is not taught again: its lesson comes with the package.
    """
    few = dataset[:15]
    steps: list[str] = []

    def run(count: int, backbone: str):
        fields = {
            "targets": ("efermi",),
            "head": {"epochs": 1},
            "fine_tuning": {"epochs": 1},
        }
        recipe = Recipe(
            modality="text",
            text={"backbone": backbone, "extent": "formula", "element_steps": count},
            **fields,
        )
        return cross_validate(
            few,
            recipe,
            n_splits=3,
            only_folds=2,
            progress=lambda label, *_: steps.append(label),
        ).predictions

    for backbone, count in ((checkpoints["text"], 2), (DEFAULT_TEXT, 0)):
        steps.clear()
        taught, plain = run(2, backbone), run(0, backbone)
        assert sum("text, elements" in label for label in steps) == count
        heads = [p[(p["model"] == "text") & (p["stage"] == "head")] for p in (taught, plain)]
        assert not np.allclose(heads[0]["predicted"], heads[1]["predicted"])
