"""Consoles, progress bars and arguments that the commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..errors import RhosightError

if TYPE_CHECKING:
    from ..dataset.dataset import Dataset
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


class FigureFormat(StrEnum):
    """File formats of figures."""

    png = "png"
    svg = "svg"
    pdf = "pdf"


class Kind(StrEnum):
    """Kinds of density."""

    total = "total"
    difference = "difference"
    spin = "spin"
    promolecule = "promolecule"


def _check_dataset(name: str) -> str:
    """Return the name of a dataset that exists; known before slow imports."""
    check_files([name])
    return name


DatasetArgument = Annotated[
    str,
    typer.Argument(
        callback=_check_dataset,
        help="Bundled dataset (mp-fcc), Parquet file, or folder with materials.csv, "
        "structures/ and densities.h5.",
    ),
]
FilesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Density files (CHGCAR, CHG, cube, XSF; may be compressed), folders that are searched "
        "for them, or one dataset."
    ),
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
    if not errors.is_terminal:  # a bar would leave an empty line
        yield lambda label, step, steps, loss=None: None
        return
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


def print_remark(word: str, where: Any, text: str) -> None:
    """Print ``word: where: text`` to standard error, such as a note on a file."""
    errors.print(f"{word}: {where}: {text}", markup=False, highlight=False, soft_wrap=True)


def choose_targets(dataset: Dataset) -> tuple[str, ...]:
    """Return the paper's targets that a dataset has; if it has none, all its targets."""
    from ..dataset.schema import TARGETS

    counts = dataset.targets.count()
    available = counts.index[counts > 0].to_list()
    return tuple(target for target in TARGETS if target in available) or tuple(available)


def check_files(files: list[str]) -> None:
    """Check that one of these files or datasets exists, before slow imports.

    Raises
    ------
    RhosightError
        If none does.
    """
    bundled = Path(__file__).parents[1] / "data"
    if not any(Path(file).exists() or (bundled / f"{file}.parquet").exists() for file in files):
        raise RhosightError(f"{files[0]}: no such file; check the path")


def read_model(name: str) -> SavedModel:
    """Load a model by its name, folder or hub id.

    Raises
    ------
    RhosightError
        If there is no such model; the message lists the names of the bundled models.
    """
    from ..models.folder import BUNDLED_MODELS

    path = Path(name)
    if name not in BUNDLED_MODELS and (path.is_file() or (not path.exists() and "/" not in name)):
        raise RhosightError(
            f"{name}: no such model; give {', '.join(BUNDLED_MODELS)} (they come with the "
            "package), the folder of a model that `rhosight train` wrote, or a hub id"
        )
    from ..models.loading import load_model  # takes a second

    return load_model(name)


def is_dataset(files: list[str]) -> bool:
    """Return whether the arguments of a command are one dataset."""
    from ..dataset.packing import BUNDLED
    from ..dataset.sources.search import is_dataset_folder

    if len(files) != 1:
        return False
    first = Path(files[0])
    named = files[0] in BUNDLED or first.suffix.lower() == ".parquet"
    return named or (first.is_dir() and is_dataset_folder(first))
