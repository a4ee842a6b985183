"""The plane, the image and the texts of crystals of all lattices (`mp-elastic`), without densities.

    python benchmarks/any_lattice.py results.csv [--every 10] [--cells 4] [--images DIR]

For each crystal: the densest lattice plane, compared with all planes of small indices, an image of
its superposed free atoms along it, and descriptions. A second cell of the same crystal (skewed,
rotated, shifted, re-ordered) has to give the same plane, image and text. The table has the CPU time
of each step and the reason of each failure; it is written crystal by crystal, and a second run adds
the steps that it lacks. Elements without free atoms have no image. Triclinic, monoclinic and
trigonal crystals come first, and their images are written to be looked at. `--contact IDS` only
joins images of `--images` into one picture.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import spglib
from PIL import Image
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from rhosight import load_dataset
from rhosight.density.bare_crystal import BareCrystal
from rhosight.density.charge_density import ChargeDensity
from rhosight.density.crystals import SYMPREC, number_species
from rhosight.density.free_atoms import promolecule
from rhosight.density.plane import lattice_plane
from rhosight.errors import RhosightError
from rhosight.inputs.image import Channel, ImageSettings, density_image, to_pil
from rhosight.inputs.text.description import canonical_cell, describe
from rhosight.inputs.text.extents import EXTENTS

SPACING = 0.2
"""Å between grid points."""
SETTINGS = ImageSettings(channels=(Channel(kind="total"),), colour="grey")
LOW = {*range(1, 16), *range(143, 168)}
"""Space groups of the crystals whose images are written."""
INDICES = np.array([hkl for hkl in itertools.product(range(-6, 7), repeat=3) if any(hkl)])
SKEW = np.array([[1, 1, 0], [0, 1, -1], [0, 0, 1]])
SAME = 0.02
"""Root mean square difference of equal images: a skewed grid holds other waves of the cores."""
COLUMNS = ["material_id", "spacegroup", "atoms", "step", "seconds", "problem"]


def draw(structure: Structure) -> np.ndarray:
    """Return the image of superposed free atoms along the densest plane."""
    a, b, c = (max(8, round(length / SPACING)) for length in structure.lattice.abc)
    total = promolecule(structure, (a, b, c))
    return density_image(ChargeDensity(structure, {"total": total}, "crystal"), SETTINGS)


def check_spacing(structure: Structure) -> str:
    """Return a problem if a plane with indices up to 6 has a longer distance than the one found."""
    cell = (structure.lattice.matrix, structure.frac_coords, number_species(structure))
    lattice, _, _ = spglib.find_primitive(cell, symprec=SYMPREC)
    spacings = 1 / np.linalg.norm(INDICES @ np.linalg.inv(lattice).T, axis=1)
    found = lattice_plane(structure).spacing
    return "" if found > spacings.max() - 1e-3 * found else f"{found:.3f}, not {spacings.max():.3f}"


def take_other_cell(structure: Structure, seed: int) -> Structure:
    """Return the same crystal: other lattice vectors, rotated, shifted, sites in another order."""
    rng = np.random.default_rng(seed)
    lattice = SKEW @ structure.lattice.matrix
    coords = structure.frac_coords @ np.linalg.inv(SKEW) + rng.random(3)
    order = rng.permutation(len(structure))
    turned = Lattice(lattice @ Rotation.random(rng=rng).as_matrix())
    return Structure(turned, [structure[i].species for i in order], coords[order] % 1)


def compare_cells(structure: Structure, image: np.ndarray) -> str:
    """Return what differs if the crystal is stored in another cell, or nothing."""
    other = take_other_cell(structure, len(structure))
    problems = []
    one, two = lattice_plane(structure), lattice_plane(other)
    if abs(one.spacing - two.spacing) > 1e-3 or one.layer_atoms != two.layer_atoms:
        problems.append(f"another plane: {one.hkl} and {two.hkl}")
    difference = float(np.sqrt(np.mean((image - draw(other)) ** 2)))
    if difference > SAME:
        problems.append(f"another image: {difference:.3f}")
    if canonical_cell(structure) != canonical_cell(other):  # by 1e-8 or more
        one, two = (describe(cell, "keywords") for cell in (structure, other))
        if one != two:
            problems.append("another text")
    return "; ".join(problems)


def run_steps(
    crystal: BareCrystal, extents: list[str], other_cell: bool, done: set[tuple[str, str]]
) -> Iterator[tuple[str, float, str, Any]]:
    """Yield name, seconds, problem and result of each step that is not done."""
    steps: dict[str, Callable[[], Any]] = {
        "plane": lambda: lattice_plane(crystal.structure),
        "spacing": lambda: check_spacing(crystal.structure),
        "image": lambda: draw(crystal.structure),
    }
    for extent in extents:
        steps[f"text {extent}"] = lambda extent=extent: describe(  # type: ignore[misc]
            crystal.structure, extent, crystal.name
        )
    if other_cell:
        steps["other cell"] = lambda: compare_cells(crystal.structure, results["image"])
    results = {}
    for name, step in steps.items():
        if (crystal.name, name) in done:
            continue
        started, problem, result = time.process_time(), "", None
        try:
            result = step()
            if name == "image" and not (np.isfinite(result).all() and np.ptp(result) > 0.1):
                problem = "the image is empty"
            if name in ("spacing", "other cell"):
                problem = result
        except KeyError:  # without an image, there is nothing to compare
            continue
        except RhosightError as error:
            problem = str(error)
        except Exception as error:  # an error of a library is a failure, too
            problem = f"{type(error).__name__}: {error}"
        if result is not None:
            results[name] = result
        yield name, time.process_time() - started, problem, result


def main(args: argparse.Namespace) -> None:
    dataset = load_dataset("mp-elastic")
    groups = dataset.table["spacegroup_number"]
    done: set[tuple[str, str]] = set()
    if args.out.exists():
        done = set(
            pd.read_csv(args.out)[["material_id", "step"]].itertuples(index=False, name=None)
        )
    for extent in args.extents:  # loads libraries, which is not to be timed
        describe(dataset.crystals[0].structure, extent)
    with args.out.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not done:
            writer.writerow(COLUMNS)
        crystals = sorted(
            dataset.crystals[:: args.every], key=lambda c: groups.loc[c.name] not in LOW
        )
        for number, crystal in enumerate(crystals):
            rows, group = [], groups.loc[crystal.name]
            for step, seconds, problem, result in run_steps(
                crystal, args.extents, number % args.cells == 0, done
            ):
                size = len(crystal.structure)
                rows.append((crystal.name, group, size, step, round(seconds, 4), problem))
                if step == "image" and args.images and result is not None and group in LOW:
                    args.images.mkdir(exist_ok=True)
                    to_pil(result).save(args.images / f"{crystal.name}.png")
            writer.writerows(rows)
            file.flush()
    summarise(pd.read_csv(args.out, keep_default_na=False))


def summarise(table: pd.DataFrame) -> None:
    """Print the times of each step, and the failures."""
    table["failed"] = table["problem"] != ""
    statistics = {"seconds": ["count", "median", "mean", "max"], "failed": "sum"}
    print(table.groupby("step").agg(statistics).round(3).to_string())
    whole = (
        table[~table["step"].isin(["spacing", "other cell"])]
        .groupby("material_id")["seconds"]
        .sum()
    )
    print(f"all steps of a crystal: {whole.mean():.2f} s, at most {whole.max():.1f} s")
    print(table[table["failed"]][["material_id", "step", "problem"]].to_string())


def join_images(folder: Path, names: list[str]) -> None:
    """Write one picture of several crystals, with names."""
    import matplotlib.pyplot as plt

    dataset = load_dataset("mp-elastic")
    structures = {crystal.name: crystal.structure for crystal in dataset.crystals}
    figure, axes = plt.subplots(2, -(-len(names) // 2), figsize=(1.9 * len(names) / 2, 4.8))
    for axis, name in zip(axes.flat, names, strict=False):
        plane = lattice_plane(structures[name])
        symbol, _ = structures[name].get_space_group_info()
        axis.imshow(plt.imread(folder / f"{name}.png"))
        formula = structures[name].composition.reduced_formula
        indices = " ".join(map(str, plane.hkl))
        axis.set_title(f"{formula}, {symbol}\n({indices})", fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(folder / "contact.png", dpi=90)
    picture = Image.open(folder / "contact.png").convert("L").quantize(32)
    picture.save(folder / "contact.png", optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--cells", type=int, default=1, help="second cells of every n-th crystal")
    parser.add_argument("--extents", nargs="*", default=list(EXTENTS))
    parser.add_argument("--images", type=Path)
    parser.add_argument("--contact", nargs="*", metavar="ID")
    args = parser.parse_args()
    if args.contact:
        join_images(args.images, args.contact)
    else:
        main(args)
