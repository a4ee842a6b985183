"""Define shared fixtures: the bundled dataset and a small folder of materials."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import h5py
import pytest

from rhosight.dataset import Dataset, load_dataset

# Garbage is searched for among the millions of objects of the libraries: less often, tests take
# 5 to 9 % less time.
gc.set_threshold(100_000, 20, 10)

LONGEST = (
    *("app", "cli", "explain", "experiments", "building", "sweep", "training", "docs"),
    *("data_commands", "experiment_report", "evaluation", "text", "materials_project"),
    *("tuning", "gpaw", "ensemble", "descriptor_model", "contrastive", "baselines", "ecd"),
    *("density_contents", "doctor", "periodic_table", "build_inputs", "formats", "design"),
    *("dataset", "features"),
)
"""Files of tests that take longest. They start first, so that all workers end together."""


OTHERS_FIRST = (
    "matplotlib.pyplot",
    "sklearn.ensemble",
    "sympy",
    "networkx",
    "transformers",
    "optuna",
)
"""Libraries that the first files of tests do not import, and the others do."""


def pytest_sessionstart() -> None:
    """Let the second worker begin with other libraries, so that each compiles what the other loads.

    A new installation is not compiled.
    """
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        for name in OTHERS_FIRST:
            import_module(name)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def pytest_collection_finish() -> None:
    """Never search for garbage among what all test files have imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Return all 405 bundled materials."""
    return load_dataset("mp-fcc")


@pytest.fixture(scope="session")
def few(dataset: Dataset) -> Dataset:
    """Return six bundled materials.

    One is spin-polarised (AlCrFe2, whose modulus is masked), one has a formula with two ids (HfC),
    and one has the space group of the diamond structure.
    """
    return dataset[["mp-1002124", "mp-21075", "mp-16495", "mp-1001833", "mp-1002206", "mp-149"]]


def write_folder(dataset: Dataset, folder: Path) -> Path:
    """Write materials as materials.csv, structures/*.cif, densities.h5 and provenance.json."""
    (folder / "structures").mkdir(parents=True)
    labels = dataset.table.copy()
    for row in dataset.masked.itertuples():
        labels.loc[row.material_id, row.target] = row.value
    labels["grid"] = ["x".join(map(str, density.shape)) for density in dataset.densities]
    labels.to_csv(folder / "materials.csv")
    with h5py.File(folder / "densities.h5", "w") as file:
        for material in dataset:
            material.structure.to(filename=str(folder / f"structures/{material.material_id}.cif"))
            for kind, grid in material.density.grids.items():
                file[f"{material.material_id}/{kind}"] = grid
    about = {"name": "few", "licence": "CC BY 4.0", "provenance": {"code": "GPAW"}}
    (folder / "provenance.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


@pytest.fixture
def folder(few: Dataset, tmp_path: Path) -> Path:
    """Return a folder with the six materials."""
    return write_folder(few, tmp_path / "few")


@pytest.fixture
def edit_labels(folder: Path) -> Callable[[Callable], Path]:
    """Return a function that edits the text of the folder's materials.csv."""

    def edit(change: Callable[[str], str]) -> Path:
        path = folder / "materials.csv"
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        return folder

    return edit


@pytest.fixture(scope="module")
def small_forests() -> Iterator[None]:
    """Baselines of few trees, for tests of what becomes of their predictions, not of their scores.

    Most of the time of a small cross-validation is that of forests of full size.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rhosight.models.baselines.regressors.N_TREES", 20)
        yield


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    """Return a folder each of a tiny timm model, text encoder and CLIP, as the hub has them."""
    import timm
    import torch
    from tokenizers import pre_tokenizers
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, RobertaConfig, RobertaModel

    from rhosight.networks.backbones import TextBackbone

    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    image = timm.create_model("test_efficientnet", pretrained=False)
    timm.models.save_for_hf(image, folder / "image", model_config={}, safe_serialization=True)
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }  # fmt: skip
    tokenizer = TextBackbone().tokenizer
    tokenizer.save_pretrained(folder / "text")
    RobertaModel(RobertaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "text")
    letters = pre_tokenizers.ByteLevel.alphabet()
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    CLIPTokenizer(vocabulary, [], model_max_length=77).save_pretrained(folder / "clip")
    config = CLIPConfig(
        text_config=sizes | {"vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1},
        vision_config=sizes | {"image_size": 48, "patch_size": 16},
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(folder / "clip")
    return {name: str(folder / name) for name in ("image", "text", "clip")}
