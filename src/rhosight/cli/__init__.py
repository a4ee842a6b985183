"""The command line: parse, call one public function, show."""

from __future__ import annotations

import logging
import sys

import typer

from ..errors import RhosightError
from . import data, explaining, learning, predicting, slices
from .common import errors

app = typer.Typer(
    name="rhosight",
    help="Structure-property relations from electron charge densities.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command, example in {
    learning.demo: "rhosight demo --out demo",
    learning.crossval: ("rhosight crossval mp-fcc --modality image --target bulk_modulus_vrh"),
    learning.train: "rhosight train mp-fcc --out model",
    learning.pretrain: "rhosight pretrain mp-fcc --out encoder",
    predicting.predict: "rhosight predict best relaxed/*/CHGCAR --format csv",
    explaining.explain: "rhosight explain CHGCAR --out why",
    slices.image: "rhosight image CHGCAR --kind difference --out slices",
}.items():
    app.command(epilog=f"Example: {example}")(command)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line; a user's mistake ends in one line and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
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
    try:
        app()
    except RhosightError as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        errors.print("interrupted; the same command goes on from here", markup=False)
        raise SystemExit(130) from None
