"""Jobs of many visitors on few worker processes: whose turn it is, and what becomes of a job.

Visitors take turns, whatever the number of jobs each has waiting. Each waiting job is told its
place; a running one what it does. A job that is given up and does not end by itself within seconds
is stopped: its worker is killed and another takes its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RhosightError
from .limits import Limits
from .worker import Worker, WorkerDied

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
"""Between two updates at most: by it a job learns that its visitor has left."""

SPARED_SECONDS = 8.0
"""For a job that was given up to end by itself: another worker takes longer to start, and the next
visitor would wait for it."""

RESTART_SECONDS = 5.0
"""Between two attempts to start a process that does not."""

DIED = "the worker process that read it died, most likely for lack of memory; try a smaller file"


@dataclass(frozen=True)
class Update:
    """What there is to say of a job.

    Attributes
    ----------
    place
        Jobs that are served before it, itself included; 0 once it runs.
    label, step, steps
        What it does or waits for, and how far it is.
    result
        The answer, with the last update.
    """

    place: int = 0
    label: str = ""
    step: int = 0
    steps: int = 0
    result: dict[str, Any] | None = None


@dataclass(eq=False)
class _Job:
    visitor: str
    task: str
    folder: Path | None
    arguments: dict[str, Any]
    runs: bool = False
    update: Update = field(default_factory=Update)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: dict[str, Any] | Exception | None = None

    def tell(self, label: str, step: int, steps: int) -> None:
        self.update = Update(label=label, step=step, steps=steps)
        self.changed.set()

    def end(self, outcome: dict[str, Any] | Exception) -> None:
        self.outcome = outcome
        self.changed.set()


class Pool:
    """Worker processes, and the jobs that wait for them. All of it runs in one event loop."""

    def __init__(self, workers: int, limits: Limits) -> None:
        self._count = workers
        self._limits = limits
        self._waiting: dict[str, deque[_Job]] = {}  # in the order of the visitors' turns
        self._arrived = asyncio.Condition()
        self._keepers: list[asyncio.Task] = []
        self._workers: dict[int, Worker] = {}
        self._running: dict[_Job, asyncio.Task] = {}
        self._ready = False  # whether a process has ever been

    def start(self) -> None:
        """Start the processes; jobs wait until they are warm."""
        self._keepers = [asyncio.create_task(self._keep(i)) for i in range(self._count)]

    async def close(self) -> None:
        """End all processes."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()

    async def run(
        self, visitor: str, task: str, folder: Path | None, arguments: dict[str, Any]
    ) -> AsyncIterator[Update]:
        """Updates of one job; the last has its result.

        Closing the iterator, or cancelling who waits for it, gives the job up.

        Parameters
        ----------
        visitor
            Whose job it is.
        task, folder, arguments
            As :meth:`Worker.run` takes them.

        Raises
        ------
        RhosightError
            What is wrong with the input, or that too many jobs wait.
        """
        job = _Job(visitor, task, folder, arguments)
        await self._enter(job)
        said = None
        try:
            while job.outcome is None:
                update = job.update if job.runs else self._waits(job)
                if update != said or not job.changed.is_set():
                    yield update
                said = update
                job.changed.clear()
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await job.changed.wait()
                except TimeoutError:
                    continue
            if isinstance(job.outcome, Exception):
                raise job.outcome
            yield Update(result=job.outcome)
        finally:
            self._give_up(job)

    async def _enter(self, job: _Job) -> None:
        mine = self._waiting.get(job.visitor, ())
        if len(mine) >= self._limits.waiting_each:
            raise RhosightError("too many of your jobs are waiting; let some of them finish")
        if sum(map(len, self._waiting.values())) >= self._limits.waiting:
            raise RhosightError("too many jobs are waiting; try again in a minute")
        async with self._arrived:
            self._waiting.setdefault(job.visitor, deque()).append(job)
            self._arrived.notify()

    def _turns(self) -> Iterator[_Job]:
        """Waiting jobs in the order in which they will be served."""
        queues = [list(queue) for queue in self._waiting.values()]
        for turn in range(max(map(len, queues), default=0)):
            yield from (queue[turn] for queue in queues if turn < len(queue))

    def _waits(self, job: _Job) -> Update:
        place = next((i for i, other in enumerate(self._turns(), start=1) if other is job), 1)
        return Update(place=place, label="" if self._ready else "the server is getting ready")

    def _take(self) -> _Job:
        """The next job; its visitor goes to the end of the line."""
        visitor = next(iter(self._waiting))
        queue = self._waiting.pop(visitor)
        job = queue.popleft()
        if queue:
            self._waiting[visitor] = queue
        return job

    def _give_up(self, job: _Job) -> None:
        queue = self._waiting.get(job.visitor)
        if queue and job in queue:
            queue.remove(job)
            if not queue:
                del self._waiting[job.visitor]
        if running := self._running.get(job):
            asyncio.get_running_loop().call_later(SPARED_SECONDS, running.cancel)

    async def _keep(self, number: int) -> None:
        """Run one job after the other on the worker of this number, and replace it as needed."""
        worker = await self._start(number)
        while True:
            async with self._arrived:
                await self._arrived.wait_for(lambda: self._waiting)
                job = self._take()
            job.runs = True
            job.tell("starting", 0, 1)
            self._running[job] = asyncio.create_task(
                worker.run(job.task, job.folder, job.arguments, job.tell)
            )
            fine = False
            try:
                await asyncio.wait([self._running[job]])
                outcome = self._running[job]
                if outcome.cancelled():
                    job.end(RhosightError("cancelled"))
                elif isinstance(error := outcome.exception(), WorkerDied):
                    job.end(RhosightError(DIED))
                elif error:
                    job.end(error)
                    # one that answered is as good as before, one that is late is not
                    fine = isinstance(error, RhosightError) and worker.idle
                else:
                    job.end(outcome.result())
                    fine = True
            finally:
                self._running.pop(job).cancel()
            if not fine:
                worker.kill()
                worker = await self._start(number)

    async def _start(self, number: int) -> Worker:
        while True:
            worker = self._workers[number] = Worker(self._limits)
            try:
                await worker.ready()
                self._ready = True
                return worker
            except (WorkerDied, TimeoutError):
                worker.kill()
                logger.error("worker %d does not start; the next attempt follows", number)
                await asyncio.sleep(RESTART_SECONDS)
