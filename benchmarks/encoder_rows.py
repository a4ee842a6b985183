"""Candidates for the recipes `image`, `text` and `image+text`, and tables of their features.

A table of features serves many candidates: :func:`narrow` selects the layers, statistics, images
and texts that a candidate reads. A candidate that changes nothing else costs only the fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rhosight import DescriptorRecipe, load_recipe
from rhosight.dataset import Dataset
from rhosight.inputs.image import Channel, ImageSettings
from rhosight.models.blocks import BlockReader
from rhosight.models.encoder_blocks import name_images
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.networks.feature_settings import three_planes
from rhosight.networks.features import spread_layers
from rhosight.storage import replacing

BY_HAND = "chosen by hand"
"""The first recipes, which learned all targets as they are."""

COMPOSITION = ("magpie", "volume", "prototype")
FAMILIES = {
    "image": BY_HAND,
    "text": BY_HAND,
    "image+text": BY_HAND,
    "composition": "composition",
    "best": "best",
}
"""Name → the candidate to which the others of the family are compared."""

BESIDE_BEST = "beside best"
"""The table with the blocks of `best` and those of the encoders."""

THIRD = "image+text in a third process"


def _wide_window(kind: str) -> ImageSettings:
    """Return the recipe's image with windows of 16 Å."""
    own = three_planes(kind)
    slices = tuple(channel.model_copy(update={"window": 16.0}) for channel in own.channels)
    return own.model_copy(update={"channels": slices})


def _parallel(kind: str) -> ImageSettings:
    """Return the densest plane with planes at a quarter and half a spacing beside it."""
    slices = tuple(Channel(kind=kind, window=8.0, offset=offset) for offset in (0.0, 0.25, 0.5))
    return ImageSettings(channels=slices, interpolation="spline")


def _pair(make: Any) -> dict[str, Any]:
    """Return fields of an image recipe with one turn and both kinds of density."""
    return {"turns": 1, "images": tuple(make(kind) for kind in ("total", "difference"))}


def _beside_best() -> dict[str, DescriptorRecipe]:
    """Return `best` alone, with encoders in each of its processes, and with one more process."""
    best, read = load_recipe("best"), load_recipe("image+text", scales=None)
    inside = tuple(
        one.model_copy(update={"together": (*one.together, "image", "text")})
        for one in best.kernels
    )
    more = (*best.kernels, *read.kernels)
    return {
        "best": best,
        "image+text in each process": read.model_copy(update={"kernels": inside}),
        THIRD: read.model_copy(update={"kernels": more}),
    }


TABLES: dict[str, DescriptorRecipe] = {
    name: load_recipe(recipe, scales=None, **changes)
    for name, recipe, changes in (
        ("shipped", "image+text", {}),
        ("untaught", "text", {"text": {"lesson": False}}),
        ("one turn", "image", {"image": {"turns": 1}}),
        ("96 pixels", "image", {"image": _pair(lambda kind: three_planes(kind, 96))}),
        ("16 Å", "image", {"image": _pair(_wide_window)}),
        ("parallel planes", "image", {"image": _pair(_parallel)}),
        ("image of networks", "image", {"image": {"turns": 1, "images": (ImageSettings(),)}}),
    )
} | {BESIDE_BEST: _beside_best()[THIRD]}
"""Name → recipe whose features are computed."""


@dataclass(frozen=True)
class Candidate:
    """A recipe, and the table with its features.

    Attributes
    ----------
    family
        Of :data:`FAMILIES`.
    name
        The difference from the family's recipe that was chosen by hand.
    recipe
        The settings.
    table
        Of :data:`TABLES`.
    chosen
        Whether it takes part in the nested choice.
    """

    family: str
    name: str
    recipe: DescriptorRecipe
    table: str = "shipped"
    chosen: bool = True


def list_candidates() -> list[Candidate]:
    """Return the recipes that were chosen by hand, and alternatives with one or two differences."""
    both_read = load_recipe("image+text", scales=None)
    total, difference = both_read.image.images
    image: dict[str, dict[str, Any]] = {
        "total only": {"image": {"images": (total,)}},
        "difference only": {"image": {"images": (difference,)}},
        "three image layers": {"image": {"layers": 3}},
        "last image layer": {"image": {"layers": 1}},
        "mean only": {"image": {"statistics": ("mean",)}},
    }
    text: dict[str, dict[str, Any]] = {
        "keywords only": {"text": {"extents": ("keywords",)}},
        "all only": {"text": {"extents": ("all",)}},
        "last text layer": {"text": {"layers": 1}},
    }
    both = ({"together": ("image",)}, {"together": ("text",)}, {"together": ("image", "text")})
    root = {"scales": {"bulk_modulus_vrh": "sqrt"}}
    shipped = {"bulk modulus as square root (shipped)": root}
    leaner = {"mean only; square root": image["mean only"] | root}
    changes = {"image": image | shipped | leaner, "text": text | shipped}
    changes["image+text"] = image | text | shipped | leaner
    changes["image+text"] |= {"mean of image, text and both": {"kernels": both}}
    rows = []
    for family in changes:
        rows.append(Candidate(family, BY_HAND, load_recipe(family, scales=None)))
        rows += [
            Candidate(family, name, load_recipe(family, **({"scales": None} | fields)))
            for name, fields in changes[family].items()
        ]
    beside = {
        "composition": DescriptorRecipe(kernels=({"together": COMPOSITION},)),
        "image+text+composition": both_read.model_copy(
            update={"kernels": (Kernel(together=("image", "text", *COMPOSITION)),)}
        ),
    }
    rows += [Candidate("composition", name, own, chosen=False) for name, own in beside.items()]
    rows += [
        Candidate("best", name, own, BESIDE_BEST, False) for name, own in _beside_best().items()
    ]
    rows.append(Candidate("text", "without the lesson", TABLES["untaught"], "untaught", False))
    names = [name for name in TABLES if name not in ("shipped", "untaught", BESIDE_BEST)]
    rows += [Candidate("image", _name_table(name), TABLES[name], name, False) for name in names]
    return rows


def _name_table(name: str) -> str:
    return name if name == "one turn" else f"one turn, {name}"


def read_table(dataset: Dataset, name: str, folder: Path) -> pd.DataFrame:
    """Return a table of features, computed once and kept in a folder."""
    file = folder / f"{name}.parquet"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as draft:
            BlockReader(TABLES[name]).table(dataset).to_parquet(draft)
    return pd.read_parquet(file)


def narrow(table: pd.DataFrame, source: DescriptorRecipe, recipe: DescriptorRecipe) -> pd.DataFrame:
    """Return the columns that a recipe reads of a table of another recipe's features.

    The layers, statistics, images and texts of ``recipe`` are among those of ``source``.
    """
    own_blocks = [name for name in recipe.blocks if name != "prototype"]
    parts = [table[["prototype"]], *(table.filter(regex=rf"^{name}\.") for name in own_blocks)]
    for kind in ("image", "text"):
        own: Any = getattr(recipe, kind)
        if own is None:
            continue
        wide: Any = getattr(source, kind)
        if kind == "image":
            names = name_images(own.images)
        else:
            names = [f"text-{extent}" for extent in own.extents]
        for name in names:
            for number, layer in enumerate(spread_layers(own.layers, wide.layers), start=1):
                block = table.filter(regex=rf"^{name}-layer{layer + 1}\.")
                width = block.shape[1] // len(wide.statistics)
                starts = [wide.statistics.index(one) * width for one in own.statistics]
                columns = [at for start in starts for at in range(start, start + width)]
                chosen = block.iloc[:, columns]
                chosen.columns = [f"{name}-layer{number}.{at}" for at in range(chosen.shape[1])]
                parts.append(chosen)
    return pd.concat(parts, axis=1)
