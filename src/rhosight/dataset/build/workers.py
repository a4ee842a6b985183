"""Run batches on Dask workers: local processes, or those of a running scheduler."""

from __future__ import annotations

import itertools
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import (
    Client,
    Future,
    KilledWorker,
    LocalCluster,
    WorkerPlugin,
    as_completed,
    get_worker,
)

from ...errors import RhosightError
from .batches import Outcome, Relabel, Task

# importing it sets a level that reports every port and connection
logging.getLogger("distributed").setLevel(logging.WARNING)

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 20

QUEUED = 1000
"""Minimum number of batches in flight, so that workers that join a cluster later find work."""

KILLED = (
    "its worker was killed several times while reading it, most likely for its memory use; "
    "allow workers more (--memory), or remove this material"
)


def connect(scheduler: str, instead: str) -> Client:
    """Return a client of a running scheduler.

    ``instead`` names what the command uses without a scheduler, for the message.

    Raises
    ------
    RhosightError
        If no scheduler answers.
    """
    try:
        return Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RhosightError(
            f"{scheduler}: no Dask scheduler answers there ({type(error).__name__}); start one "
            f"with `dask scheduler`, or omit --scheduler to use {instead}"
        ) from error


@contextmanager
def open_client(
    workers: int | None, scheduler: str | None, memory: str, materials: int
) -> Iterator[Client]:
    """Open a client of a running scheduler, or of processes that end with the build.

    Raises
    ------
    RhosightError
        If no scheduler answers.
    """
    if scheduler:
        with connect(scheduler, "this machine") as client:
            if not client.nthreads():
                logger.warning("%s has no workers yet; the build waits for them", scheduler)
            yield client
        return
    count = min(workers or os.cpu_count() or 1, materials)
    with (
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=memory,
            dashboard_address=":0",  # any free port, so that two builds do not conflict
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.adapt(minimum=count, maximum=count)  # replaces a worker that dies while it starts
        yield client


def run_batches(client: Client, task: Task | Relabel, ids: list[str]) -> Iterator[Outcome]:
    """Run all batches, a bounded number at a time; yield outcomes as they finish."""
    plugin = TaskPlugin(task)
    client.register_plugin(plugin)
    try:
        yield from _run_all(client, plugin.name, task.batch, ids)
    finally:
        client.unregister_worker_plugin(plugin.name)


def _run_all(client: Client, plugin: str, size: int, ids: list[str]) -> Iterator[Outcome]:
    """Run the batches to the end, and find the materials that kill workers.

    Dask suspects all tasks that a killed worker held, not only the one under way. So the materials
    of a suspect batch run one by one, and a suspect material last, beside no other.
    """
    batches = (ids[i : i + size] for i in range(0, len(ids), size))
    running = as_completed(loop=client.loop)
    owners = {}
    suspects = []

    def submit(batch: list[str]) -> Future:
        future = client.submit(_run, plugin, batch, pure=False)
        owners[future.key] = batch
        return future

    for batch in itertools.islice(batches, max(QUEUED, 2 * sum(client.nthreads().values()))):
        running.add(submit(batch))
    for future in running:
        batch = owners.pop(future.key)
        outcome = _wait_for(future)
        if following := next(batches, None):
            running.add(submit(following))
        if outcome:
            yield outcome
        elif len(batch) > 1:
            for material_id in batch:
                running.add(submit([material_id]))
        else:
            suspects += batch
    for material_id in suspects:
        outcome = _wait_for(submit([material_id]))
        yield outcome or Outcome([material_id], {material_id: [("read", KILLED)]}, {})


def _wait_for(future: Future) -> Outcome | None:
    """Return the outcome of a batch, or None if it may have killed workers."""
    try:
        outcome: Outcome = future.result()
    except KilledWorker:
        return None
    except OSError as error:  # from writing; errors of reading are problems of the material
        raise RhosightError(
            f"a worker cannot write its results ({error}); free disk space, or make the folder "
            "accessible to the worker, and repeat the command"
        ) from error
    return outcome


class TaskPlugin(WorkerPlugin):
    """Carry the task to every worker, including workers that start later."""

    def __init__(self, task: Task | Relabel) -> None:
        self.task = task
        self.name = f"rhosight-{uuid.uuid4().hex}"


def _run(plugin: str, ids: list[str]) -> Outcome:
    carrier = get_worker().plugins[plugin]
    assert isinstance(carrier, TaskPlugin)
    return carrier.task.run(ids)
