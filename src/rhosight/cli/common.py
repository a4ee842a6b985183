"""What the commands share: where they print, progress bars, arguments."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..errors import RhosightError, first_line

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from ..dataset.dataset import Dataset
    from ..density.charge_density import ChargeDensity
    from ..models.base import SavedModel

console = Console()
errors = Console(stderr=True)


class FirstBlock(StrEnum):
    total = "total"
    difference = "difference"


class Kind(StrEnum):
    total = "total"
    difference = "difference"
    spin = "spin"
    promolecule = "promolecule"


DatasetArgument = Annotated[
    str,
    typer.Argument(
        help="A bundled dataset (mp-fcc), a Parquet file, or a folder with materials.csv, "
        "structures/ and densities.h5."
    ),
]
FilesArgument = Annotated[
    list[str],
    typer.Argument(help="Density files (CHGCAR, CHG, cube, XSF, compressed or not), or a dataset."),
]
DifferenceOption = Annotated[
    str | None,
    typer.Option(
        help="File with the difference beside each CHGCAR, for models that read both; {parent}, "
        "{name} and {stem} stand for parts of the CHGCAR's path."
    ),
]
KindOption = Annotated[
    FirstBlock,
    typer.Option(help="What the files, or the first block of each CHGCAR, hold."),
]


def shared_options(
    parameter: str, options: dict[str, tuple], make: Callable[..., Any], panel: str
) -> Callable[[Callable], Callable]:
    """A decorator that gives several commands the same options.

    The command has one ``parameter`` in their place, which gets what ``make`` makes of them.
    ``options``: name → (type, default, help), and the smallest value if there is one.
    """

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name != parameter]
        extra = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[
                    kind,
                    typer.Option(help=text, min=next(iter(least), None), rich_help_panel=panel),
                ],
            )
            for name, (kind, default, text, *least) in options.items()
        ]

        def wrapped(**values: Any) -> Any:
            settings = {name: values.pop(name) for name in options}
            return function(**{parameter: make(**settings)}, **values)

        wrapped.__doc__ = function.__doc__
        wrapped.__name__ = function.__name__
        wrapped.__signature__ = signature.replace(
            parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + extra
        )
        return wrapped

    return decorate


@contextmanager
def progress_bar():
    """A bar for whatever reports (label, step, steps, watched loss)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(label: str, step: int, steps: int, watched: float | None = None) -> None:
            if label not in tasks:
                for old in tasks.values():
                    bar.update(old, visible=False)
                tasks[label] = bar.add_task(label, total=steps)
            text = label if watched is None else f"{label}, loss {watched:.3f}"
            bar.update(tasks[label], completed=step, description=text)

        yield report


def default_targets(dataset: Dataset) -> tuple[str, ...]:
    """What is predicted if no target is asked for: those of the paper, or else all there are."""
    from ..dataset.schema import TARGETS

    have = dataset.targets.count()
    there = have.index[have > 0].to_list()
    return tuple(target for target in TARGETS if target in there) or tuple(there)


def read_model(name: str) -> SavedModel:
    """A model by its name; what can be neither a folder nor a hub id gets the names there are."""
    from ..models.folder import BUNDLED_MODELS
    from ..models.loading import load_model

    path = Path(name)
    if name not in BUNDLED_MODELS and (path.is_file() or (not path.exists() and "/" not in name)):
        raise RhosightError(
            f"{name}: no such model; {' and '.join(BUNDLED_MODELS)} come with the package, others "
            "are named by the folder that `rhosight train` wrote, or by a hub id"
        )
    return load_model(name)


_STRUCTURE_NAME = re.compile(r"\.m?cif\b|POSCAR|CONTCAR|\.vasp\b", re.IGNORECASE)


def named_as_structure(file: str | Path) -> bool:
    """Whether it is called as files of structures alone are (and, of .vasp, as others are)."""
    return bool(_STRUCTURE_NAME.search(Path(file).name))


def read_structures(files: list[str]) -> Dataset | dict[str, Structure]:
    """Structures of CIF, POSCAR or density files by name, or one dataset."""
    if _is_dataset(files):
        return _read_dataset(files[0])
    return {file: _read_structure(file) for file in files}


def _read_structure(file: str) -> Structure:
    from pymatgen.core import Structure

    from ..density.files import read_density, recognise

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what stops pymatgen is in its error
            return Structure.from_file(file)
    except Exception as error:  # no structure file: pymatgen raises what its parsers raise
        try:
            recognise(file)
        except RhosightError:
            if not Path(file).is_file():
                raise
            raise RhosightError(
                f"{file}: not a readable structure ({first_line(error)}), nor a density; give a "
                "CIF, a POSCAR, or a density file (CHGCAR, CHG, cube, XSF)"
            ) from error
    return read_density(file).structure


def _read_dataset(name: str) -> Dataset:
    """A dataset; a folder of density files is not taken for one."""
    from ..dataset.packing import BUNDLED, load_dataset
    from ..dataset.sources.folder import densities_instead

    if name not in BUNDLED and (pattern := densities_instead(Path(name))):
        raise RhosightError(
            f"{name}: a folder of density files, not a dataset; give the files: {pattern}"
        )
    return load_dataset(name)


def read_materials(
    files: list[str], kind: FirstBlock, difference: str | None, structures: str = ""
) -> Dataset | Sequence[ChargeDensity]:
    """Density files, or one dataset, from the arguments of a command.

    A file is read when its density is asked for, so that a thousand take no more memory than a few.
    What is no density file at all is refused here, before any work is done.

    ``structures``: the command, with {file}, that takes structures alone; for messages.
    """
    from ..dataset.dataset import Lazy
    from ..dataset.sources.directory import companion
    from ..density.difference import with_difference
    from ..density.files import read_density, recognise

    if _is_dataset(files):
        if kind is not FirstBlock.total or difference:
            option = "--difference" if difference else "--kind"
            raise RhosightError(
                f"{option} is about density files, and {files[0]} is a dataset, which says itself "
                "what it holds; leave it out (`rhosight image` draws what --show says)"
            )
        return _read_dataset(files[0])
    for file in files:
        with _command_for_structures(file, structures):
            recognise(file)

    def read(number: int) -> ChargeDensity:
        file = Path(files[number])
        with _command_for_structures(file, structures):
            density = read_density(file, kind.value)
        if difference:
            other = read_density(companion(difference, file), "difference")
            density = with_difference(density, other)
        return density

    return Lazy(read, len(files))


def check_difference(pattern: str | None, files: list[str]) -> None:
    """That a pattern can name the file with the difference beside each of these files."""
    from ..dataset.sources.directory import check_pattern

    if pattern:
        check_pattern(pattern, several=len(files) > 1)


@contextmanager
def _command_for_structures(file: str | Path, command: str):
    """Add to an error about a file that may be a structure alone which command takes those."""
    try:
        yield
    except RhosightError as error:
        if not command or not named_as_structure(file) or not Path(file).is_file():
            raise
        raise RhosightError(
            f"{error} (a structure without density: `{command.format(file=file)}`)"
        ) from error


def _is_dataset(files: list[str]) -> bool:
    from ..dataset.packing import BUNDLED

    first = Path(files[0])
    return len(files) == 1 and (
        files[0] in BUNDLED or first.is_dir() or first.suffix.lower() == ".parquet"
    )
