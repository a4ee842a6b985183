"""``rhosight serve``: the web page."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from typing import Annotated

import typer

from ..app.limits import MIB, Limits
from ..errors import RhosightError
from .common import console

BOUNDS = Limits()


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 7860,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Jobs at a time; as many as there are cores if not given."
        ),
    ] = None,
    max_file: Annotated[int, typer.Option(min=1, help="Largest upload, MiB.")] = BOUNDS.file_bytes
    // MIB,
    max_points: Annotated[
        int, typer.Option(min=1, help="Largest grid, points.")
    ] = BOUNDS.grid_points,
    seconds: Annotated[float, typer.Option(min=1, help="Longest time of a job.")] = BOUNDS.seconds,
    memory: Annotated[
        int, typer.Option(min=256, help="Most memory of a job, MiB.")
    ] = BOUNDS.memory_bytes // MIB,
) -> None:
    """Open a web page: drop a density, see its planes, get the prediction."""
    if find_spec("gradio") is None:
        raise RhosightError("the web page needs Gradio: pip install 'rhosight[app]'")
    from ..app.site import serve as run

    limits = Limits(
        file_bytes=max_file * MIB,
        grid_points=max_points,
        seconds=seconds,
        memory_bytes=memory * MIB,
    )
    _check_host(host)
    console.print("starting …")
    run(host, port, workers or os.cpu_count() or 1, limits)


def _check_host(host: str) -> None:
    """That this machine has the address, whatever the port: a wrong one is told from a taken one.

    Raises
    ------
    RhosightError
        If it has not.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        raise RhosightError(
            f"{host}: not an address of this machine; give one of its own with --host: 127.0.0.1 "
            "for this machine alone, 0.0.0.0 for all that reach it"
        ) from error
