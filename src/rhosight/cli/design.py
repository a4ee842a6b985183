"""``rhosight design``: crystals that probably have wanted properties."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RhosightError
from .common import console, errors, print_line, progress_bar
from .predictions import format_value
from .reading import NotesMode, NotesOption, Reading

if TYPE_CHECKING:
    from ..design.result import Design


class Geometry(StrEnum):
    """Ways to find the geometry of a candidate."""

    volume = "volume"
    chgnet = "chgnet"


class Strategy(StrEnum):
    """Ways to choose candidates."""

    list = "list"
    nsga2 = "nsga2"


class Method(StrEnum):
    """Ways to verify proposals."""

    gpaw = "gpaw"


TargetOption = Annotated[
    list[str],
    typer.Option(
        help="Wanted range of a property, such as bulk_modulus_vrh=200..250, "
        "formation_energy_per_atom=..-0.5 or energy_above_hull=..0.1; may be given several times."
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        help="Folder for the ledger, CIFs, table and report. The same command continues an "
        "interrupted search."
    ),
]
ElementsOption = Annotated[
    str, typer.Option(help="The only elements that may occur: Ti,Al,Ni. Default: all known.")
]
ExcludeOption = Annotated[str, typer.Option(help="Elements that may not occur: Pb,Cd.")]
LikeOption = Annotated[
    Path | None,
    typer.Option(help="CIF or POSCAR: occupy the structure type of this crystal only."),
]
PrototypesOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Folder of CIF or POSCAR files whose structure types are occupied instead of the "
        "bundled ones; may be given several times, also with `bundled`.",
        show_default="bundled",
    ),
]
CountOption = Annotated[int, typer.Option(help="Largest number of proposals.", min=1)]
CandidatesOption = Annotated[int, typer.Option(help="Number of crystals to try.", min=1)]
SeedOption = Annotated[int, typer.Option(help="Seed of the order of the candidates.", min=0)]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        help="no-dft, best, structure, structure+potential, or the folder of a model; may be "
        "given several times. Those "
        "that read densities predict the most probable candidates only, four for each proposal, "
        "from predicted densities.",
        show_default="no-dft",
    ),
]
MaxAtomsOption = Annotated[int, typer.Option(help="Largest primitive cell.", min=1)]
RigidOption = Annotated[
    bool,
    typer.Option(
        "--rigid",
        help="Only structure types of which symmetry fixes shape and positions, so that the volume "
        "is all that can relax (as with --verify).",
    ),
]
GeometryOption = Annotated[
    Geometry,
    typer.Option(
        help="volume: shapes of known crystals with volumes of a model. chgnet: the most probable, "
        "four for each proposal, relaxed with CHGNet (pip install 'rhosight\\[chgnet]')."
    ),
]
KnownOption = Annotated[
    bool, typer.Option("--known", help="Also propose crystals of the bundled datasets.")
]
SearchOption = Annotated[
    Strategy,
    typer.Option(
        help="list: the first of all occupations by similar elements. nsga2: an evolutionary "
        "algorithm over structure types, elements and shapes (pip install 'rhosight\\[design]')."
    ),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        help="Dask scheduler whose workers predict candidates: tcp://host:8786.",
        show_default=False,
    ),
]
WorkersOption = Annotated[int, typer.Option(help="Processes that predict candidates.", min=1)]
VerifyOption = Annotated[
    Method | None,
    typer.Option(
        help="gpaw: compute the proposals with GPAW (density, formation energy, bulk modulus; six "
        "calculations or more for each), learn from them, and search again for --rounds."
    ),
]
RoundsOption = Annotated[
    int, typer.Option(help="Number of searches; --count proposals of each are computed.", min=1)
]
CompareOption = Annotated[
    int,
    typer.Option(
        help="Known crystals that --verify computes, too, to correct for how GPAW differs from the "
        "Materials Project.",
        min=3,
    ),
]
DensitiesOption = Annotated[
    bool, typer.Option(help="Predict the densities of the proposals for the report.")
]


def design(
    target: TargetOption,
    out: OutOption,
    elements: ElementsOption = "",
    exclude: ExcludeOption = "",
    like: LikeOption = None,
    prototypes: PrototypesOption = None,
    count: CountOption = 20,
    candidates: CandidatesOption = 2000,
    seed: SeedOption = 0,
    model: ModelOption = None,
    max_atoms: MaxAtomsOption = 16,
    rigid: RigidOption = False,
    geometry: GeometryOption = Geometry.volume,
    known: KnownOption = False,
    search: SearchOption = Strategy.list,
    workers: WorkersOption = 1,
    scheduler: SchedulerOption = None,
    densities: DensitiesOption = True,
    verify: VerifyOption = None,
    rounds: RoundsOption = 1,
    compare: CompareOption = 10,
    notes: NotesOption = NotesMode.show,
) -> None:
    """Search for crystals whose properties lie in wanted ranges.

    Structure types of known crystals are occupied by similar elements, predicted, and ranked by the
    probability that all wishes hold. Nothing is calculated by DFT, except with --verify.
    """
    reading = Reading(mode=notes)
    type_of = reading.read_structure(str(like)) if like else None
    reading.print_notes()
    settings: dict[str, Any] = {
        "elements": _split(elements),
        "exclude": _split(exclude),
        "like": type_of,
        "prototypes": prototypes or ["bundled"],
        "count": count,
        "candidates": candidates,
        "seed": seed,
        "out": out,
        "models": model or ["no-dft"],
        "max_atoms": max_atoms,
        "rigid": rigid,
        "include_known": known,
        "geometry": geometry.value,
        "densities": densities,
        "search": search.value,
        "workers": workers,
        "scheduler": scheduler,
    }
    if verify:
        _verify(target, rounds, compare, settings)
        return
    if rounds > 1:
        raise RhosightError("--rounds: needs --verify gpaw, whose results the next round learns")
    _search(target, settings)


def _search(targets: list[str], settings: dict[str, Any]) -> None:
    """Search, and print the proposals."""
    from ..design.search import design as search_crystals

    with progress_bar() as progress:
        result = search_crystals(targets, progress=progress, **settings)
    show(result)
    print_line(f"report, table, CIFs and ledger: {settings['out']}")


def _verify(targets: list[str], rounds: int, compare: int, settings: dict[str, Any]) -> None:
    """Search in rounds, and print what was computed."""
    from ..design.loop import run_rounds

    def log(line: str) -> None:
        errors.print(line, markup=False, highlight=False, soft_wrap=True)

    with progress_bar() as progress:
        found = run_rounds(
            targets, rounds=rounds, known=compare, progress=progress, log=log, **settings
        )
    rows: list[Any] = found.table.to_dict("records")
    for row in rows:
        print_line(_describe_verified(row))
    for name, value in found.summary.items():
        print_line(f"{name}: {value}")
    print_line(f"report, table, densities and calculations: {settings['out']}")


def _describe_verified(row: dict[str, Any]) -> str:
    """Return a line about a computed proposal."""
    from ..design.verification import describe_verdict

    start = f"round {row['round']}  {row['formula']:12}"
    if row["problem"]:
        return f"{start}{row['problem']}"
    values = (
        f"{symbol} {row[f'{name}_verified']:.{digits}f} {unit}"
        for name, symbol, digits, unit in VERIFIED
    )
    return f"{start}{', '.join(values)}; wishes {describe_verdict(row)}"


VERIFIED = (
    ("formation_energy_per_atom", "E_form", 3, "eV/atom"),
    ("energy_above_hull", "above hull", 3, "eV/atom"),
    ("bulk_modulus_vrh", "B", 0, "GPa"),
)
"""Columns of a line about a computed proposal: target, symbol, digits, unit."""


OTHER_SYMBOLS = {"shear_modulus_vrh": "G_VRH", "band_gap": "gap"}
"""Targets that the paper lacks → the heads of their columns."""


def _split(symbols: str) -> list[str]:
    return [symbol for symbol in symbols.replace(",", " ").split() if symbol]


def show(result: Design) -> None:
    """Print proposals or misses as a table that fits the terminal."""
    from ..dataset.schema import TARGET_NAMES

    tried = len(result.tried)
    if not result.is_plausible:
        print_line(
            f"nothing plausible: none of {tried} candidates reaches 10 %"
            f"{'; nearest misses:' if len(result.misses) else ''}"
        )
    table = result.shown
    if not len(table):
        return
    wanted = [w.target for w in result.wishes if w.target in result.targets]
    others = [t for t in result.targets if t not in wanted]
    columns = [
        ["#", *(str(number) for number in range(1, len(table) + 1))],
        ["formula", *table["formula"]],
        ["type", *(_shorten(name) for name in table["prototype"])],
        ["prob.", *(f"{100 * p:.0f} %" for p in table["probability"])],
    ]
    last = [
        ["hull", *(f"{value:+.2f}" for value in table.get("energy_above_hull", []))],
        [
            "known",
            *(known or ("formula" if entry else "no") for known, entry in _list_known(table)),
        ],
        ["out", *("yes" if reason else "no" for reason in table["outside"])],
    ]
    last = [column for column in last if len(column) > 1]
    for name in [*wanted, *others]:
        halves = table[f"{name}_high"] - table[name]
        cells = [format_value(v, h) for v, h in zip(table[name], halves, strict=True)]
        symbol = TARGET_NAMES[name].symbol if name in TARGET_NAMES else OTHER_SYMBOLS.get(name)
        symbol = symbol or _shorten(name)
        column = [f"{symbol} ({result.units[name]})", *cells]
        if _width([*columns, column, *last]) > console.width:
            continue  # the table of the folder has all
        columns.append(column)
    widths = [max(map(len, column)) for column in [*columns, *last]]
    for row in zip(*columns, *last, strict=True):
        padded = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(padded).rstrip())


def _list_known(table: object) -> list[tuple[str | None, str | None]]:
    return list(zip(table["known"], table["stable_entry"], strict=True))  # type: ignore[index]


def _shorten(name: str) -> str:
    """Return a name of at most 16 characters."""
    return name if len(name) <= 16 else f"{name[:15]}…"


def _width(columns: list[list[str]]) -> int:
    return sum(max(map(len, column)) for column in columns) + 2 * (len(columns) - 1)
