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
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all addresses of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Jobs at a time. Default: one per core."),
    ] = None,
    max_file: Annotated[
        int, typer.Option(min=1, help="Maximum size of an upload, MiB.")
    ] = BOUNDS.file_bytes // MIB,
    max_points: Annotated[
        int, typer.Option(min=1, help="Maximum number of grid points.")
    ] = BOUNDS.grid_points,
    seconds: Annotated[
        float, typer.Option(min=1, help="Maximum time of a job, s.")
    ] = BOUNDS.seconds,
    memory: Annotated[
        int, typer.Option(min=256, help="Maximum memory of a job, MiB.")
    ] = BOUNDS.memory_bytes // MIB,
) -> None:
    """Serve a web page that draws a density and predicts its properties."""
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
    console.print("starting ...")
    run(host, port, workers or os.cpu_count() or 1, limits)


def _check_host(host: str) -> None:
    """Check that this machine has an address.

    The port is left out, so that the error tells a wrong address from a port in use.

    Raises
    ------
    RhosightError
        If the address does not belong to this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        raise RhosightError(
            f"{host}: not an address of this machine; use --host 127.0.0.1 for access from this "
            "machine alone, or --host 0.0.0.0 for access from other machines"
        ) from error
