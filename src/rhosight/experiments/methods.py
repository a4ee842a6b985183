"""Write the methods section of the report from the settings of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..evaluation.html import describe_channel
from ..models.baselines.baselines import POTENTIAL

if TYPE_CHECKING:
    from ..dataset.dataset import Dataset

_BASELINES = {
    "mean": "of the training labels",
    "composition": "Magpie statistics of the elements, volume per atom, size of the cell and "
    "structure type",
    "promolecule": "statistics of the superposed free atoms' density",
    "density": "statistics of the density itself",
}  # input of each; all but the mean are extremely randomised trees

_PROCESSES = {
    "best": "composition, structure, superposed free atoms, and the density between the atoms",
    "no-dft": "composition, structure and superposed free atoms",
    "best+potential": "those of best, and CHGNet's formation energy and bulk modulus",
    "gp-image": "features of an image encoder",
    "gp-text": "features of a text encoder",
    "gp-image+text": "both",
}


@dataclass(frozen=True)
class Runs:
    """Extent of the cross-validation behind the answers.

    Attributes
    ----------
    repeats, folds
        Repeats, and folds of each.
    test, learned
        Numbers of materials in the test set of a repeat and outside it, in words.
    """

    repeats: int
    folds: int
    test: str
    learned: str


def describe_methods(
    dataset: Dataset,
    settings: Mapping[str, Any],
    models: set[str],
    baselines: Sequence[str],
    runs: Runs | None,
) -> str:
    """Return a paragraph for a methods section.

    Parameters
    ----------
    dataset
        Dataset that the models were trained on.
    settings
        As :func:`rhosight.experiments.reproduction.describe_run` returns them.
    models
        Names of all scored models.
    baselines
        Names of the simple ones among them.
    runs
        Extent of the cross-validation; None if there was none.
    """
    sentences = [_describe_data(dataset)]
    if runs:
        sentences.append(_describe_splits(runs, settings.get("n_splits", runs.folds)))
    if recipe := settings.get("recipe"):
        sentences.extend(_describe_stacked(recipe))
    if clip := settings.get("clip"):
        sentences.append(_describe_clip(clip))
    sentences.extend(_describe_simple_models(models, baselines))
    sentences.append(_STATISTICS)
    return " ".join(sentences)


def _describe_data(dataset: Dataset) -> str:
    name = dataset.metadata.get("name") or "an unnamed dataset"
    about = dataset.metadata.get("description")
    return f"Data: {name}, {about.rstrip('.') if about else f'{len(dataset)} materials'}."


def _describe_splits(runs: Runs, n_splits: int) -> str:
    start = "A" if runs.repeats == 1 else f"In each of {runs.repeats} repeats a"
    some = f", of which {runs.folds} were run" if runs.folds < n_splits else ""
    return (
        f"{start} test set of {runs.test} materials was drawn and held out, and the other "
        f"{runs.learned} were divided into {n_splits} folds{some}. Each repeat has its own seeds "
        "for the split and the training. Materials of one formula stay in one set."
    )


def _describe_stacked(recipe: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Image model: {recipe['image_backbone']}, on {_describe_images(recipe['image'])}. Text "
        f"model: {recipe['text_backbone']}, on texts by Robocrystallographer in the extents "
        "formula, keywords and all. Each first trains its readout of four dense layers on "
        "frozen features (head stage), then all layers (fine-tuning). The stacked model "
        "concatenates the 256 penultimate features of both and is trained in the same way."
    )
    stacked = recipe["stacked_epochs"]
    yield (
        f"The two stages have at most {recipe['epochs'][0]} and {recipe['epochs'][1]} epochs "
        f"({stacked[0]} and {stacked[1]} for the stacked model), {_describe_training(recipe)}."
    )


def _describe_clip(recipe: Mapping[str, Any]) -> str:
    encoders = recipe["clip"] or (
        f"a dual encoder of {recipe['image_backbone']} and {recipe['text_backbone']}"
    )
    pretraining = ""
    if not recipe["clip"]:
        pretraining = (
            ", pre-trained for at most "
            f"{recipe['pretraining']['epochs']} epochs to match the images and texts of the fold's "
            "training set"
        )
    return (
        f"CLIP: {encoders}{pretraining}, on {_describe_images(recipe['image'])} and the first "
        f"{recipe['max_tokens']} tokens of the text, with a linear layer on both embeddings. The "
        f"two stages have at most {recipe['epochs'][0]} and {recipe['epochs'][1]} epochs, "
        f"{_describe_training(recipe)} (trial T3; the trials of Tables 2 and 3 differ)."
    )


def _describe_simple_models(models: set[str], baselines: Sequence[str]) -> Iterator[str]:
    if baselines:
        yield (
            f"Baselines on the same folds: {_list_models(baselines, _BASELINES)}; all but the mean "
            "are extremely randomised trees."
        )
    if any(name.startswith("chgnet") for name in models):
        yield "The model chgnet uses an embedding of CHGNet."
    if POTENTIAL in models:
        yield (
            f"{POTENTIAL} is CHGNet's formation energy, relative to its energies of the elements, "
            "and the bulk modulus of its equation of state, without learning."
        )
    if processes := [name for name in _PROCESSES if name in models]:
        yield (
            "Gaussian processes over descriptors or features, fitted to the same folds: "
            f"{_list_models(processes, _PROCESSES)}."
        )


_STATISTICS = (
    "Scores are means over folds with standard deviations; intervals are 95 % percentile bootstrap "
    "intervals of the pooled score over materials. Pairs of models are compared with the corrected "
    "resampled t-test of Nadeau and Bengio on the RMSE of each fold. p values are corrected with "
    "Holm's method over all targets and pairs of a question, intervals of differences with "
    "Bonferroni's. Blends are made by stacking, as Breiman proposed."
)


def _list_models(names: Sequence[str], words: Mapping[str, str]) -> str:
    return "; ".join(f"{name} ({words[name]})" for name in names)


def _describe_images(image: Mapping[str, Any]) -> str:
    """Describe the images of the density that a network reads."""
    channels = "; ".join(describe_channel(channel) for channel in image["channels"])
    kind = "Fourier transforms of images" if image["fourier"] else "images"
    return (
        f"{kind} of the density on a lattice plane ({channels}; {image['size']} pixels wide, "
        f"normalisation “{image['normalisation']}”, colours “{image['colour']}”)"
    )


def _describe_training(recipe: Mapping[str, Any]) -> str:
    monitored = {
        "inner": "an inner split of the training set",
        "validation": "the validation fold, as in the paper, which makes its scores optimistic",
    }[recipe["early_stopping"]]
    return (
        f"in batches of {recipe['batch_size'][0]} and {recipe['batch_size'][1]}, with AdamW, a "
        f"{recipe['schedule']} schedule and learning rates of {recipe['learning_rate'][0]:g} and "
        f"{recipe['learning_rate'][1]:g} (readout), {recipe['image_rate']:g} (image) and "
        f"{recipe['text_rate']:g} (text), and the Huber loss of standardised targets; early "
        f"stopping monitored {monitored}"
    )
