"""Consoles, progress bars and arguments that the commands share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..errors import RhosightError

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from ..dataset.dataset import Dataset
    from ..density.charge_density import ChargeDensity
    from ..inputs.progress import AnyProgress
    from ..models.base import SavedModel

console = Console()
errors = Console(stderr=True)

_debugging = False


def set_debugging(value: bool) -> None:
    """Choose whether unexpected errors are shown with their traceback."""
    global _debugging
    _debugging = value


def is_debugging() -> bool:
    """Return whether unexpected errors are shown with their traceback."""
    return _debugging


class FirstBlock(StrEnum):
    """Kinds of density that the first block of a file can contain."""

    total = "total"
    difference = "difference"


class Kind(StrEnum):
    """Kinds of density."""

    total = "total"
    difference = "difference"
    spin = "spin"
    promolecule = "promolecule"


DatasetArgument = Annotated[
    str,
    typer.Argument(
        help="Bundled dataset (mp-fcc), Parquet file, or folder with materials.csv, "
        "structures/ and densities.h5."
    ),
]
FilesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Density files (CHGCAR, CHG, cube, XSF; may be compressed) or one dataset."
    ),
]
DifferenceOption = Annotated[
    str | None,
    typer.Option(
        help="File with the difference density of each CHGCAR, for models that need both. "
        "{parent}, {name} and {stem} are replaced by parts of the path of the CHGCAR."
    ),
]
KindOption = Annotated[
    FirstBlock,
    typer.Option(help="Kind of density in the files (in the first block of each CHGCAR)."),
]


def shared_options(
    parameter: str, options: dict[str, tuple], make: Callable[..., Any], panel: str
) -> Callable[[Callable], Callable]:
    """Return a decorator that gives several commands the same options.

    Parameters
    ----------
    parameter
        Parameter of the command that receives the result of ``make``.
    options
        Name → (type, default, help), and the minimum value if there is one.
    make
        Makes the value of the parameter from the options.
    panel
        Title of the options in the help text.
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
                    typer.Option(help=text, min=next(iter(minimum), None), rich_help_panel=panel),
                ],
            )
            for name, (kind, default, text, *minimum) in options.items()
        ]

        def command(**values: Any) -> Any:
            settings = {name: values.pop(name) for name in options}
            return function(**{parameter: make(**settings)}, **values)

        command.__doc__ = function.__doc__
        command.__name__ = function.__name__
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + extra
        # functions have no such attribute for mypy; inspect.signature, and so Typer, reads it
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return decorate


@contextmanager
def progress_bar() -> Iterator[AnyProgress]:
    """Show a progress bar; yield the function that reports (label, step, steps, loss)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(label: str, step: int, steps: int, loss: float | None = None) -> None:
            if label not in tasks:
                for old in tasks.values():
                    bar.update(old, visible=False)
                tasks[label] = bar.add_task(label, total=steps)
            text = label if loss is None else f"{label}, loss {loss:.3f}"
            bar.update(tasks[label], completed=step, description=text)

        yield report


def format_count(count: int, noun: str) -> str:
    """Return a number and its noun, such as ``1 material`` or ``2 materials``."""
    return f"{count} {noun if count == 1 else f'{noun}s'}"


def print_line(line: str) -> None:
    """Print a line without wrapping and markup, so that paths and ids can be copied."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def choose_targets(dataset: Dataset) -> tuple[str, ...]:
    """Return the paper's targets that a dataset has; if it has none, all its targets."""
    from ..dataset.schema import TARGETS

    counts = dataset.targets.count()
    available = counts.index[counts > 0].to_list()
    return tuple(target for target in TARGETS if target in available) or tuple(available)


def read_model(name: str) -> SavedModel:
    """Load a model by its name, folder or hub id.

    Raises
    ------
    RhosightError
        If there is no such model; the message lists the names of the bundled models.
    """
    from ..models.folder import BUNDLED_MODELS
    from ..models.loading import load_model

    path = Path(name)
    if name not in BUNDLED_MODELS and (path.is_file() or (not path.exists() and "/" not in name)):
        raise RhosightError(
            f"{name}: no such model; give {' or '.join(BUNDLED_MODELS)} (they come with the "
            "package), the folder of a model that `rhosight train` wrote, or a hub id"
        )
    return load_model(name)


_STRUCTURE_NAME = re.compile(r"\.m?cif\b|POSCAR|CONTCAR|\.vasp\b", re.IGNORECASE)


def has_structure_name(file: str | Path) -> bool:
    """Return whether the name is usual for a structure file (.vasp is, but not only)."""
    return bool(_STRUCTURE_NAME.search(Path(file).name))


def read_structures(files: list[str]) -> Dataset | dict[str, Structure]:
    """Return the structures of CIF, POSCAR or density files by name, or one dataset."""
    if is_dataset(files):
        return _read_dataset(files[0])
    from ..density.structures import read_structure

    return {file: read_structure(file) for file in files}


def _read_dataset(name: str) -> Dataset:
    """Load a dataset; refuse a folder of density files, which is not one."""
    from ..dataset.packing import BUNDLED, load_dataset
    from ..dataset.sources.folder import find_density_pattern

    if name not in BUNDLED and (pattern := find_density_pattern(Path(name))):
        raise RhosightError(
            f"{name}: this is a folder of density files, not a dataset; give the files: {pattern}"
        )
    return load_dataset(name)


def read_materials(
    files: list[str], kind: FirstBlock, difference: str | None, structures: str = ""
) -> Dataset | Sequence[ChargeDensity]:
    """Return density files, or one dataset, from the arguments of a command.

    A file is read when its density is needed, so that a thousand files take no more memory than a
    few. A file that is not a density file is refused here, before any work is done.

    Parameters
    ----------
    files
        Density files, or one dataset.
    kind
        Kind of density in the files.
    difference
        Pattern of the files with the difference density.
    structures
        Command, with {file}, that reads structures alone; for messages.
    """
    from ..dataset.dataset import Lazy
    from ..dataset.sources.directory import fill_pattern
    from ..density.difference import add_difference
    from ..density.files import read_density, recognise

    if is_dataset(files):
        if kind is not FirstBlock.total or difference:
            option = "--difference" if difference else "--kind"
            raise RhosightError(
                f"{option} is for density files, and {files[0]} is a dataset, which records the "
                "kinds of its densities; omit it (in `rhosight image`, choose a kind with --show)"
            )
        return _read_dataset(files[0])
    for file in files:
        with _suggest_command(file, structures):
            recognise(file)

    def read(number: int) -> ChargeDensity:
        file = Path(files[number])
        with _suggest_command(file, structures):
            density = read_density(file, kind.value)
        if difference:
            other = read_density(fill_pattern(difference, file), "difference")
            density = add_difference(density, other)
        return density

    return Lazy(read, len(files))


def check_difference(pattern: str | None, files: list[str]) -> None:
    """Check that a pattern names a difference-density file for each of these files.

    Raises
    ------
    RhosightError
        If it does not.
    """
    from ..dataset.sources.directory import check_pattern

    if pattern:
        check_pattern(pattern, several=len(files) > 1)


@contextmanager
def _suggest_command(file: str | Path, command: str) -> Iterator[None]:
    """Add a command for structures to an error about a file that may be one."""
    try:
        yield
    except RhosightError as error:
        if not command or not has_structure_name(file) or not Path(file).is_file():
            raise
        raise RhosightError(
            f"{error} (for a structure without density: `{command.format(file=file)}`)"
        ) from error


def is_dataset(files: list[str]) -> bool:
    """Return whether the arguments of a command are one dataset."""
    from ..dataset.packing import BUNDLED

    first = Path(files[0])
    return len(files) == 1 and (
        files[0] in BUNDLED or first.is_dir() or first.suffix.lower() == ".parquet"
    )
