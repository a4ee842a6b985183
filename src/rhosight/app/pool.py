"""Run the jobs of many visitors on a few worker processes.

Visitors take turns, whatever the number of jobs of each. A waiting job reports its place in the
queue, a running job its progress. An abandoned job has a few seconds to end; then its worker is
killed and replaced.
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
"""Maximum time between two updates: with an update a job learns that its visitor has left."""

GRACE_SECONDS = 8.0
"""Time for an abandoned job to end. Starting another worker takes longer, and the next visitor
would wait for it."""

RESTART_SECONDS = 5.0
"""Time between two attempts to start a worker."""

DIED = "the worker process died, probably because it ran out of memory; try a smaller file"


@dataclass(frozen=True)
class Update:
    """The state of a job.

    Attributes
    ----------
    place
        Place in the queue, 1 for the next job; 0 once the job runs.
    label, step, steps
        What the job does or waits for, and its progress.
    result
        The result; only in the last update.
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
    is_running: bool = False
    update: Update = field(default_factory=Update)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: dict[str, Any] | BaseException | None = None

    def report(self, label: str, step: int, steps: int) -> None:
        self.update = Update(label=label, step=step, steps=steps)
        self.changed.set()

    def finish(self, outcome: dict[str, Any] | BaseException) -> None:
        self.outcome = outcome
        self.changed.set()


class Pool:
    """Worker processes and the jobs that wait for them, all in one event loop."""

    def __init__(self, workers: int, limits: Limits) -> None:
        self._count = workers
        self._limits = limits
        self._waiting: dict[str, deque[_Job]] = {}  # in the order of the visitors' turns
        self._arrived = asyncio.Condition()
        self._keepers: list[asyncio.Task] = []
        self._workers: dict[int, Worker] = {}
        self._running: dict[_Job, asyncio.Task] = {}
        self._has_started = False  # at least one worker has been ready

    def start(self) -> None:
        """Start the processes; jobs wait until the models are loaded."""
        self._keepers = [asyncio.create_task(self._keep_worker(i)) for i in range(self._count)]

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
        """Yield updates of one job; the last has its result.

        Closing the iterator, or cancelling the task that waits for it, abandons the job.

        Parameters
        ----------
        visitor
            Owner of the job.
        task, folder, arguments
            As for :meth:`Worker.run`.

        Raises
        ------
        RhosightError
            If the input is wrong, or too many jobs are waiting.
        """
        job = _Job(visitor, task, folder, arguments)
        await self._enqueue(job)
        last = None
        try:
            while job.outcome is None:
                update = job.update if job.is_running else self._describe_wait(job)
                if update != last or not job.changed.is_set():
                    yield update
                last = update
                job.changed.clear()
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await job.changed.wait()
                except TimeoutError:
                    continue
            if isinstance(job.outcome, BaseException):
                raise job.outcome
            yield Update(result=job.outcome)
        finally:
            self._abandon(job)

    async def _enqueue(self, job: _Job) -> None:
        own = self._waiting.get(job.visitor, ())
        if len(own) >= self._limits.waiting_each:
            raise RhosightError("too many of your jobs are waiting; let some of them finish first")
        if sum(map(len, self._waiting.values())) >= self._limits.waiting:
            raise RhosightError("too many jobs are waiting; try again in a minute")
        async with self._arrived:
            self._waiting.setdefault(job.visitor, deque()).append(job)
            self._arrived.notify()

    def _iter_queue(self) -> Iterator[_Job]:
        """Yield the waiting jobs in the order in which they will run."""
        queues = [list(queue) for queue in self._waiting.values()]
        for turn in range(max(map(len, queues), default=0)):
            yield from (queue[turn] for queue in queues if turn < len(queue))

    def _describe_wait(self, job: _Job) -> Update:
        places = enumerate(self._iter_queue(), start=1)
        place = next((place for place, other in places if other is job), 1)
        return Update(place=place, label="" if self._has_started else "the server is starting")

    def _take_next(self) -> _Job:
        """Return the next job; its visitor goes to the end of the queue."""
        visitor = next(iter(self._waiting))
        queue = self._waiting.pop(visitor)
        job = queue.popleft()
        if queue:
            self._waiting[visitor] = queue
        return job

    def _abandon(self, job: _Job) -> None:
        queue = self._waiting.get(job.visitor)
        if queue and job in queue:
            queue.remove(job)
            if not queue:
                del self._waiting[job.visitor]
        if running := self._running.get(job):
            asyncio.get_running_loop().call_later(GRACE_SECONDS, running.cancel)

    async def _keep_worker(self, number: int) -> None:
        """Run one job after the other on one worker, and replace the worker as needed."""
        worker = await self._start_worker(number)
        while True:
            async with self._arrived:
                await self._arrived.wait_for(lambda: self._waiting)
                job = self._take_next()
            job.is_running = True
            job.report("starting", 0, 1)
            self._running[job] = asyncio.create_task(
                worker.run(job.task, job.folder, job.arguments, job.report)
            )
            is_usable = False
            try:
                await asyncio.wait([self._running[job]])
                is_usable = self._finish(job, self._running[job], worker)
            finally:
                self._running.pop(job).cancel()
            if not is_usable:
                worker.kill()
                worker = await self._start_worker(number)

    @staticmethod
    def _finish(job: _Job, run: asyncio.Task, worker: Worker) -> bool:
        """Set the outcome of a job; return whether its worker can take another."""
        if run.cancelled():
            job.finish(RhosightError("cancelled"))
            return False
        error = run.exception()
        if error is None:
            job.finish(run.result())
            return True
        job.finish(RhosightError(DIED) if isinstance(error, WorkerDied) else error)
        # a worker that has answered is usable; one that was too slow is not
        return isinstance(error, RhosightError) and worker.is_idle

    async def _start_worker(self, number: int) -> Worker:
        while True:
            worker = self._workers[number] = Worker(self._limits)
            try:
                await worker.wait_until_ready()
                self._has_started = True
                return worker
            except (WorkerDied, TimeoutError):
                worker.kill()
                logger.error(
                    "worker %d did not start; trying again in %g s", number, RESTART_SECONDS
                )
                await asyncio.sleep(RESTART_SECONDS)
