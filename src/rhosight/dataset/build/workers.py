"""Dask's workers: processes of this machine, or those of a running scheduler."""

from __future__ import annotations

import itertools
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import (
    Client,
    KilledWorker,
    LocalCluster,
    WorkerPlugin,
    as_completed,
    get_worker,
)

from ...errors import RhosightError
from .batches import Outcome, Relabel, Task

# set as it is imported to tell of every port and connection
logging.getLogger("distributed").setLevel(logging.WARNING)

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 20

QUEUED = 1000
"""Batches that wait or run at a time, at least: workers that join a cluster later find work."""

KILLED = (
    "its worker was killed several times while it was read, most likely for the memory it took; "
    "give workers more (--memory), or leave this material out"
)


@contextmanager
def open_client(
    workers: int | None, scheduler: str | None, memory: str, materials: int
) -> Iterator[Client]:
    """Dask's client, of a running scheduler or of processes that end with the build."""
    if scheduler:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise RhosightError(
                f"{scheduler}: no Dask scheduler answers there ({type(error).__name__}); start one "
                "with `dask scheduler`, or leave out --scheduler to use this machine"
            ) from error
        with client:
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
            dashboard_address=":0",  # any free port: two builds at once are no conflict
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def outcomes(client: Client, task: Task | Relabel, ids: list[str]) -> Iterator[Outcome]:
    """Run all batches, a bounded number at a time, in whatever order they finish."""
    plugin = TaskPlugin(task)
    client.register_plugin(plugin)
    try:
        yield from _run_all(client, plugin.name, task.batch, ids)
    finally:
        client.unregister_worker_plugin(plugin.name)


def _run_all(client: Client, plugin: str, size: int, ids: list[str]) -> Iterator[Outcome]:
    batches = (ids[i : i + size] for i in range(0, len(ids), size))
    running = as_completed(loop=client.loop)
    owners = {}

    def submit(batch: list[str]) -> None:
        future = client.submit(_run, plugin, batch, pure=False)
        owners[future.key] = batch
        running.add(future)

    for batch in itertools.islice(batches, max(QUEUED, 2 * sum(client.nthreads().values()))):
        submit(batch)
    for future in running:
        batch = owners.pop(future.key)
        try:
            outcome = future.result()
        except KilledWorker:
            if len(batch) > 1:  # one of them is to blame: each on its own
                for material_id in batch:
                    submit([material_id])
                continue
            outcome = Outcome(batch, {batch[0]: [("read", KILLED)]}, {})
        except OSError as error:  # of writing; those of reading are the material's
            raise RhosightError(
                f"a worker cannot write what it has read ({error}); make room, or see that it "
                "reaches the folder, and give the same command again"
            ) from error
        if following := next(batches, None):
            submit(following)
        yield outcome


class TaskPlugin(WorkerPlugin):
    """Carries the task to every worker, also to those that are started later."""

    def __init__(self, task: Task | Relabel) -> None:
        self.task = task
        self.name = f"rhosight-{uuid.uuid4().hex}"


def _run(plugin: str, ids: list[str]) -> Outcome:
    return get_worker().plugins[plugin].task.run(ids)
