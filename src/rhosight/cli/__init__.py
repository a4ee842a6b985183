"""The command line: commands parse arguments, call functions and print results."""

from __future__ import annotations

import logging
import shlex
import sys
import warnings
from typing import Annotated, Any

import typer

from ..errors import RhosightError, name_missing_extra
from ..version import __version__
from . import (
    cite,
    data,
    density,
    design,
    doctor,
    explain,
    image,
    predict,
    reproduce,
    serve,
    sweep,
    train,
)
from .batches import describe_failure
from .common import errors, set_debugging

app = typer.Typer(
    name="rhosight",
    help="Predict properties of materials from their electron charge densities.",
    epilog="Start with `rhosight doctor` and `rhosight predict best CHGCAR`. COMMAND --help shows "
    "an example of each command. `rhosight --install-completion` enables completion with the Tab "
    "key.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

START, USE, TRAIN, DATA = "Start", "Use a model", "Train and compare", "Data"

COMMANDS = (
    # panel of the help text, command, example
    (START, doctor.doctor, "rhosight doctor"),
    (START, train.demo, "rhosight demo --out demo"),
    (START, cite.cite, "rhosight cite > rhosight.bib"),
    (USE, predict.predict, "rhosight predict best relaxed/*/CHGCAR --format csv"),
    (USE, density.density, "rhosight density MgO.cif -o MgO.CHGCAR"),
    (
        USE,
        design.design,
        "rhosight design --target bulk_modulus_vrh=200..250 --target energy_above_hull=..0.1 "
        "--out stiff",
    ),
    (USE, explain.explain, "rhosight explain CHGCAR --out why"),
    (USE, serve.serve, "rhosight serve --port 7860"),
    (USE, image.image, "rhosight image CHGCAR --show difference --free-atoms --out slices"),
    (TRAIN, train.train, "rhosight train mp-fcc --out model"),
    (TRAIN, train.pretrain, "rhosight pretrain mp-fcc --out encoder"),
    (
        TRAIN,
        train.crossval,
        "rhosight crossval mp-fcc --modality image --target bulk_modulus_vrh",
    ),
    (TRAIN, reproduce.reproduce, "rhosight reproduce figure2 table1 --repeats 5"),
    (TRAIN, sweep.sweep, "rhosight sweep mp-fcc --space network --trials 30 --out sweep"),
)
for panel, command, example in COMMANDS:
    app.command(rich_help_panel=panel, epilog=f"Example: {example}")(command)
app.add_typer(reproduce.runs, name="runs", rich_help_panel=TRAIN)
app.add_typer(data.app, name="data", rich_help_panel=DATA)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an unexpected error."),
    ] = False,
) -> None:
    """Accept options before the command."""
    if debug:
        set_debugging(True)


class _LineHandler(logging.Handler):
    """Prints messages above a progress bar, never into its line."""

    def emit(self, record: logging.LogRecord) -> None:
        errors.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


def _is_interrupted(error: BaseException | None) -> bool:
    """Return whether Ctrl-C ended a command, which Typer turns into an exit code."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _print_continuation() -> None:
    """Print the command that continues an interrupted one."""
    # it reports every process that ends
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    command = shlex.join(["rhosight", *sys.argv[1:]])
    errors.print(
        f"interrupted; what is finished in a run folder is kept; to continue: {command}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _show_warning(message: Warning | str, *_: Any) -> None:
    """Print a warning in one line, without the place in the source."""
    errors.print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; wrong input ends with one line and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_LineHandler()])
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    for name in (
        "distributed",
        "httpx",
        "httpx2",
        "lightning",
        "fsspec",
        "timm",
        "huggingface_hub",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    set_debugging("--debug" in sys.argv)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        with name_missing_extra():
            app(image.join_indices(arguments))
    except RhosightError as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(2) from None
    except SystemExit as stop:
        if _is_interrupted(stop):
            _print_continuation()
        raise
    except Exception as error:
        failure = describe_failure(error, "error")
        errors.print(str(failure), style="red", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(2) from None
