"""Compare the time of plain Robocrystallographer with describe_many.

Both run in one process on one core and describe the same cells of bundled materials. They take
turns of a few structures each, so that other programs on the machine affect both alike. Time is
processor time. The loading of the libraries is excluded; everything else is included, such as the
one-time preparation in describe_many. The exit code is 1 if a text differs or the ratio is below
the bound.

The plain route is the loop of a typical user, once per structure:
StructureCondenser().condense_structure(cell), then StructureDescriber().describe(...), with the
same settings. It gets the canonical cell ready-made, whereas describe_many has to find it. Texts
are compared after `normalise_text`, which sorts the parts whose order depends on Python's hash
seed. The table of steps comes from the profiler, which slows down some steps more than others:
compare its rows, not its sums.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymatgen.core import Structure

    Route = Callable[[Sequence[Structure]], list[str]]

BOUND = 5.0  # speed-up
TURN = 8  # structures per turn per turn
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# step → functions by file and name; none of them calls another
STEPS = {
    "canonical cell": [("text/description.py", "canonical_cell")],
    "symmetry": [("spglib/spg.py", "get_symmetry_dataset")],
    "databases of minerals, molecules": [
        ("condense/mineral.py", "load_mineral_db_file"),
        ("condense/molecule.py", "__init__"),
    ],
    "comparison with prototypes": [("prototypes/matcher.py", "get_prototypes")],
    "neighbours (Voronoi)": [("local_env.py", "get_voronoi_polyhedra")],
    "order parameters": [("local_env.py", "get_order_parameters")],
    "next nearest neighbours": [("condense/site.py", "get_next_nearest_neighbors")],
    "writing": [("describe/describer.py", "describe")],
}


def main() -> int:
    arguments = parse()
    os.environ.update(dict.fromkeys(THREADS, "1"))  # before NumPy loads
    warnings.simplefilter("ignore")  # the libraries warn about deprecations and missing radii
    from rhosight import load_dataset
    from rhosight.inputs.text.description import canonical_cell, normalise_text

    dataset = load_dataset("mp-fcc")
    sample = dataset[:: max(1, len(dataset) // arguments.count)]
    structures = [material.structure for material in sample]
    cells = [canonical_cell(structure) for structure in structures]
    routes = make_routes()

    seconds = dict.fromkeys(routes, 0.0)
    texts: dict[str, list[str]] = {route: [] for route in routes}
    for start in range(0, len(cells), TURN):
        turn = slice(start, start + TURN)
        for route, describe in routes.items():
            before = time.process_time()
            texts[route] += describe(structures[turn] if route == "rhosight" else cells[turn])
            seconds[route] += time.process_time() - before
        done = min(start + TURN, len(cells))
        so_far = ", ".join(f"{route} {total:.1f} s" for route, total in seconds.items())
        print(f"{done} of {len(cells)}: {so_far}", file=sys.stderr, flush=True)

    different = {
        material.material_id: {"plain": normalise_text(plain), "rhosight": ours}
        for material, plain, ours in zip(sample, *texts.values(), strict=True)
        if normalise_text(plain) != ours
    }
    report = {
        "materials": len(structures),
        "time": "seconds of one core, libraries loaded",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("robocrys", "matminer", "pymatgen")},
        "seconds": seconds,
        "ratio": seconds["plain"] / seconds["rhosight"],
        "bound": BOUND,
        "different": different,
        "steps": profile(routes, structures, cells, arguments.profiled),
    }
    print(table(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if not different and report["ratio"] >= BOUND else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--count",
        type=int,
        default=40,
        help="minimum number of bundled materials, evenly spread (405: all)",
    )
    parser.add_argument("--profiled", type=int, default=6, help="materials for the table of steps")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser.parse_args()


def make_routes() -> dict[str, Route]:
    """Load the libraries and return the function that describes structures, by name."""
    from robocrys import StructureCondenser, StructureDescriber

    import rhosight.inputs.text.robocrystallographer  # noqa: F401  # noqa: F401
    from rhosight.inputs.text.description import SYMPREC, describe_many

    def plain(cell: Structure) -> str:
        facts = StructureCondenser(symprec=SYMPREC).condense_structure(cell)
        return StructureDescriber(describe_symmetry_labels=False).describe(facts)

    return {"plain": lambda cells: [plain(cell) for cell in cells], "rhosight": describe_many}


def profile(
    routes: dict[str, Route], structures: list[Structure], cells: list[Structure], count: int
) -> dict[str, dict[str, float]]:
    """Return the profiled seconds per structure, by route and step."""
    if not count:
        return {}
    few = slice(None, None, max(1, len(cells) // count))
    found = {}
    for route, describe in routes.items():
        inputs = (structures if route == "rhosight" else cells)[few]
        profiler = cProfile.Profile()
        profiler.runcall(describe, inputs)
        stats = pstats.Stats(profiler).stats  # (file, line, name) → calls, ..., cumulative, callers
        steps = {
            step: sum(
                row[3]
                for (file, _, name), row in stats.items()
                if any(name == wanted and file.endswith(end) for end, wanted in functions)
            )
            / len(inputs)
            for step, functions in STEPS.items()
        }
        whole = sum(row[2] for row in stats.values()) / len(inputs)
        found[route] = {**steps, "all else": whole - sum(steps.values()), "whole": whole}
    return found


def table(report: dict) -> str:
    count = report["materials"]
    lines = [
        f"{count} bundled materials, {report['time']}",
        "",
        f"{'':<34}{'total':>12}{'per structure':>15}",
    ]
    for route, seconds in report["seconds"].items():
        lines.append(f"{route:<34}{seconds:>10.1f} s{seconds / count:>13.3f} s")
    lines.append("")
    if steps := report["steps"]:
        head = "".join(f"{route:>12}" for route in steps)
        lines.append(f"{'ms per structure, profiled':<34}{head}")
        for step in steps["rhosight"]:
            row = "".join(f"{1000 * steps[route][step]:>12.0f}" for route in steps)
            lines.append(f"{step:<34}{row}")
        lines.append("")
    for name, pair in report["different"].items():
        lines.append(f"{name} differs:")
        lines += [f"  {route:<10}{text}" for route, text in pair.items()]
    verdict = "holds" if report["ratio"] >= report["bound"] else "does NOT hold"
    lines.append(f"texts equal: {count - len(report['different'])} of {count}")
    lines.append(f"bound: {report['ratio']:.1f} times faster ≥ {report['bound']:g} {verdict}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
