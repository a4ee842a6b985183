"""A worker process: warm, with bounded memory and time, and dispensable.

Whatever reads an upload runs here. The process may crash, hang or be killed at any moment: the
server loses one job and starts another process. Messages in both directions are JSON, so that a
process that was taken over by a hostile file cannot send the server anything but text.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..errors import RhosightError
from ..inputs.progress import Progress
from .limits import MIB, Limits

logger = logging.getLogger(__name__)

START_SECONDS = 600.0
"""In which a new process has to be ready: it loads the models and predicts once."""

GRACE_SECONDS = 5.0
"""By which a job outlives its time when the server is no longer there to end it."""

MESSAGE_BYTES = 64 * MIB
"""Of one answer, at most."""


class WorkerDied(Exception):
    """The process ended, or was ended, without an answer."""


class Worker:
    """A process that runs one job at a time; used from one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # a fork would share the server's threads and sockets
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, limits), name="rhosight-worker", daemon=True
        )
        self._process.start()
        theirs.close()
        self._ready = False
        self.idle = True
        """Whether the last job was answered."""

    async def ready(self) -> None:
        """Wait until models are loaded.

        Raises
        ------
        WorkerDied
            If the process ends before, or takes more than :data:`START_SECONDS`.
        """
        if not self._ready:
            await self._receive(time.monotonic() + START_SECONDS)
            self._ready = True

    async def run(
        self, task: str, folder: Path | None, arguments: dict[str, Any], progress: Progress
    ) -> dict[str, Any]:
        """The answer of one task of :data:`rhosight.app.tasks.TASKS`.

        Parameters
        ----------
        task, arguments
            Its name and its arguments, JSON.
        folder
            Where it may read and write files.
        progress
            Called with (label, step, steps).

        Raises
        ------
        RhosightError
            What the task says of its input, and if it takes too long.
        WorkerDied
            If the process is gone.
        """
        deadline = time.monotonic() + self._limits.seconds
        request = {"task": task, "folder": folder and str(folder), "arguments": arguments}
        self.idle = False
        try:
            self._pipe.send_bytes(json.dumps(request).encode())
        except OSError as error:
            raise WorkerDied from error
        while True:
            try:
                message = await self._receive(deadline)
            except TimeoutError:
                raise RhosightError(
                    f"stopped after {self._limits.seconds:g} s; try a coarser grid or a smaller "
                    "cell, or use rhosight on your own machine"
                ) from None
            if "progress" in message:
                progress(*message["progress"])
                continue
            self.idle = True
            if "error" in message:
                raise RhosightError(message["error"])
            return message["result"]

    async def _receive(self, deadline: float) -> dict[str, Any]:
        try:
            left = max(0.0, deadline - time.monotonic())
            if not await asyncio.to_thread(self._pipe.poll, left):
                raise TimeoutError
            return json.loads(self._pipe.recv_bytes(MESSAGE_BYTES))
        except (EOFError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise WorkerDied from error

    def kill(self) -> None:
        """End the process at once, whatever it does, and wait for its end."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, limits: Limits) -> None:
    """What the process does: get warm, then one job after the other until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    logging.basicConfig(level=logging.WARNING, format="worker: %(message)s", stream=sys.stderr)
    from threadpoolctl import threadpool_limits

    from .tasks import TASKS, warm_up

    threadpool_limits(1)  # there is a process for each core
    warm_up()
    _bound_memory(limits)
    _send(pipe, {"ready": True})
    while True:
        try:
            request = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        name, folder = request["task"], request["folder"]

        def progress(label: str, step: int, steps: int) -> None:
            _send(pipe, {"progress": [label, step, steps]})

        # ends the process in the middle of anything, even if the server died
        _alarm(limits.seconds + GRACE_SECONDS)
        try:
            if folder:
                os.chdir(folder)  # names in messages are then those of the visitor's files
            result = TASKS[name](request["arguments"], limits, progress)
            _send(pipe, {"result": result})
        except RhosightError as error:
            _send(pipe, {"error": _one_line(error, folder)})
        except MemoryError:
            _send(pipe, {"error": "needs more memory than a visitor gets; try a coarser grid"})
        except Exception:
            if not folder or Path(folder).exists():  # else it was given up, and nobody waits
                logger.exception("task %s failed", name)
            what = "this file" if name == "analyse" else "this"
            _send(pipe, {"error": f"rhosight failed on {what} for a reason it does not know"})
        finally:
            _alarm(0)
            if folder:
                os.chdir("/")


def _send(pipe: Connection, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message, allow_nan=False).encode())


def _one_line(error: RhosightError, folder: str | None) -> str:
    """The sentence, without the path of the server."""
    text = " ".join(str(error).split())
    return text.replace(f"{folder}/", "") if folder else text


def _alarm(seconds: float) -> None:
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(math.ceil(seconds))


def _bound_memory(limits: Limits) -> None:
    """Let this process take so much more than it has; Linux only, as /proc is."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    most = pages * resource.getpagesize() + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.disk_bytes, limits.disk_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
