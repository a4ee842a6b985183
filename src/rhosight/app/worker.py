"""A worker process with loaded models and limited memory and time.

All code that reads an upload runs here. The process may crash, hang or be killed at any moment: the
server loses one job and starts another process. Messages in both directions are JSON. A hostile
file that takes over the process therefore cannot send the server anything but text.
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
"""Maximum time for a new process to load the models and predict once."""

GRACE_SECONDS = 5.0
"""Extra time of a job before its process ends itself, in case the server has died."""

MESSAGE_BYTES = 64 * MIB
"""Maximum size of one response, in bytes."""

SMALLER = {"analyse": "a coarser grid or a smaller cell", "design": "fewer or smaller crystals"}
"""What takes less time than a task that was stopped."""

OUT_OF_MEMORY = "this needs more memory than the server allows for one job; try a coarser grid"

FAILED = "rhosight failed with an unexpected error; the log of the server has the details"


class WorkerDied(Exception):
    """The process ended or was killed without a response."""


class Worker:
    """A process that runs one job at a time. Used from one event loop."""

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
        self._is_ready = False
        self.is_idle = True
        """Whether the last job has been answered."""

    async def wait_until_ready(self) -> None:
        """Wait until the models are loaded.

        Raises
        ------
        WorkerDied
            If the process ends before it is ready.
        TimeoutError
            If it takes more than :data:`START_SECONDS`.
        """
        if not self._is_ready:
            await self._receive(time.monotonic() + START_SECONDS)
            self._is_ready = True

    async def run(
        self, task: str, folder: Path | None, arguments: dict[str, Any], progress: Progress
    ) -> dict[str, Any]:
        """Run one task of :data:`rhosight.app.tasks.TASKS` and return its result.

        Parameters
        ----------
        task, arguments
            Name and arguments (JSON) of the task.
        folder
            Folder in which the task may read and write files.
        progress
            Called with (label, step, steps).

        Raises
        ------
        RhosightError
            If the task refuses its input or takes too long.
        WorkerDied
            If the process has ended.
        """
        seconds = self._limits.seconds_of(task)
        deadline = time.monotonic() + seconds
        request = {"task": task, "folder": folder and str(folder), "arguments": arguments}
        self.is_idle = False
        try:
            self._pipe.send_bytes(json.dumps(request).encode())
        except OSError as error:
            raise WorkerDied from error
        while True:
            try:
                message = await self._receive(deadline)
            except TimeoutError:
                raise RhosightError(
                    f"stopped after {seconds:g} s; try {SMALLER.get(task, SMALLER['analyse'])}, "
                    "or use rhosight on your own machine"
                ) from None
            if "progress" in message:
                progress(*message["progress"])
                continue
            self.is_idle = True
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
        """Kill the process and wait for its end."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, limits: Limits) -> None:
    """Load the models, then run one job after the other until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server handles Ctrl-C
    logging.basicConfig(level=logging.WARNING, format="worker: %(message)s", stream=sys.stderr)
    from threadpoolctl import threadpool_limits

    from .tasks import TASKS, warm_up

    threadpool_limits(1)  # there is one process per core
    warm_up()
    _limit_memory(limits)
    _send(pipe, {"ready": True})
    while True:
        try:
            request = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        name, folder = request["task"], request["folder"]

        def progress(label: str, step: int, steps: int) -> None:
            _send(pipe, {"progress": [label, step, steps]})

        # the signal ends the process, even if the server has died
        _set_alarm(limits.seconds_of(name) + GRACE_SECONDS)
        try:
            if folder:
                os.chdir(folder)  # messages then name files without the path of the server
            result = TASKS[name](request["arguments"], limits, progress)
            _send(pipe, {"result": result})
        except RhosightError as error:
            _send(pipe, {"error": _make_line(error, folder)})
        except MemoryError:
            _send(pipe, {"error": OUT_OF_MEMORY})
        except Exception:
            if not folder or Path(folder).exists():  # otherwise the job was abandoned
                logger.exception("task %s failed", name)
            _send(pipe, {"error": FAILED})
        finally:
            _set_alarm(0)
            if folder:
                os.chdir("/")


def _send(pipe: Connection, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message, allow_nan=False).encode())


def _make_line(error: RhosightError, folder: str | None) -> str:
    """Return the message on one line, without the path of the server."""
    text = " ".join(str(error).split())
    return text.replace(f"{folder}/", "") if folder else text


def _set_alarm(seconds: float) -> None:
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(math.ceil(seconds))


def _limit_memory(limits: Limits) -> None:
    """Limit the additional memory of this process; on Linux only, which has /proc."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    maximum = pages * resource.getpagesize() + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (maximum, maximum))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.disk_bytes, limits.disk_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
