"""The plane, the image and the texts of crystals of all lattices (`mp-elastic`), without densities.

    python benchmarks/any_lattice.py results.csv [--every 10] [--extents keywords] [--images DIR]

For each crystal: the densest lattice plane, an image of its superposed free atoms along it, and
descriptions. The table has the time of each step and the reason of each failure. Elements without
free atoms have no image. Images of the crystals that are least symmetric are written to be looked
at. Texts of the extent `all` take seconds each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rhosight import load_dataset
from rhosight.density.bare_crystal import BareCrystal
from rhosight.density.charge_density import ChargeDensity
from rhosight.density.free_atoms import promolecule
from rhosight.density.plane import lattice_plane
from rhosight.errors import RhosightError
from rhosight.inputs.image import Channel, ImageSettings, density_image, to_pil
from rhosight.inputs.text.description import describe

SPACING = 0.2
"""Å between grid points."""
SETTINGS = ImageSettings(channels=(Channel(kind="total"),), colour="grey")
LOW = 15
"""Last space group of the crystals whose images are written."""


def draw(crystal: BareCrystal) -> np.ndarray:
    """Return the image of superposed free atoms along the densest plane."""
    structure = crystal.structure
    a, b, c = (max(8, round(length / SPACING)) for length in structure.lattice.abc)
    total = promolecule(structure, (a, b, c))
    return density_image(ChargeDensity(structure, {"total": total}, crystal.name), SETTINGS)


def run_steps(crystal: BareCrystal, extents: list[str]) -> Iterator[tuple[str, float, str, Any]]:
    """Yield name, seconds, problem and result of each step."""
    steps: dict[str, Callable[[], Any]] = {
        "plane": lambda: lattice_plane(crystal.structure),
        "image": lambda: draw(crystal),
    }
    for extent in extents:
        steps[f"text {extent}"] = lambda extent=extent: describe(  # type: ignore[misc]
            crystal.structure, extent, crystal.name
        )
    for name, step in steps.items():
        started, problem, result = time.process_time(), "", None
        try:
            result = step()
            if name == "image" and not (np.isfinite(result).all() and np.ptp(result) > 0.1):
                problem = "the image is empty"
        except RhosightError as error:
            problem = str(error)
        except Exception as error:  # an error of a library is a failure, too
            problem = f"{type(error).__name__}: {error}"
        yield name, time.process_time() - started, problem, result


def main(args: argparse.Namespace) -> None:
    dataset = load_dataset("mp-elastic")
    rows = []
    for number, crystal in enumerate(dataset.crystals[:: args.every]):
        group = dataset.table["spacegroup_number"].loc[crystal.name]
        for step, seconds, problem, result in run_steps(crystal, args.extents):
            rows.append((crystal.name, group, len(crystal.structure), step, seconds, problem))
            if step == "image" and args.images and result is not None and group <= LOW:
                args.images.mkdir(exist_ok=True)
                to_pil(result).save(args.images / f"{crystal.name}-{group}.png")
        if number % 50 == 0:
            columns = ["material_id", "spacegroup", "atoms", "step", "seconds", "problem"]
            table = pd.DataFrame(rows, columns=columns)
            table.to_csv(args.out, index=False)
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(args.out, index=False)
    table["failed"] = table["problem"] != ""
    print(table.groupby("step").agg({"seconds": ["median", "max"], "failed": "sum"}).round(3))
    print(table[table["failed"]][["material_id", "step", "problem"]].to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--extents", nargs="*", default=["formula", "keywords"])
    parser.add_argument("--images", type=Path)
    main(parser.parse_args())
