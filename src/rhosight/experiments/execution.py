"""Run the jobs of a plan, in this process or on the workers of a Dask scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Literal

from ..errors import RhosightError
from ..inputs.progress import AnyProgress
from .jobs import Job, JobFolder
from .plan import Plan
from .tensorboard import make_logger

_ONE_AT_A_TIME = Lock()
"""Workers that are threads of one process take turns: jobs draw the process's random numbers."""


def run_jobs(
    plan: Plan,
    jobs: Sequence[Job],
    folder: JobFolder,
    progress: AnyProgress | None = None,
    log: Literal["tensorboard"] | None = None,
) -> None:
    """Run the unfinished jobs of a plan."""
    if all(folder.is_finished(job) for job in jobs):
        return
    from .work import Workbench  # the networks' libraries take seconds to load

    on_finish = make_logger(folder) if log else None
    with _ONE_AT_A_TIME:
        folder.run(jobs, Workbench(plan.dataset, plan.preset.targets), progress, on_finish)


def run_on_cluster(
    plan: Plan,
    jobs: Sequence[Job],
    folder: JobFolder,
    scheduler: str,
    log: Literal["tensorboard"] | None = None,
) -> None:
    """Let every worker of a Dask scheduler run jobs until all are finished.

    The workers share the run folder. Its locks give each job to one worker.

    Raises
    ------
    RhosightError
        If no scheduler answers at the address, or it has no workers.
    """
    from ..dataset.build.workers import connect

    unfinished = [job for job in jobs if not folder.is_finished(job)]
    if not unfinished:
        return
    with connect(scheduler, "this process") as client:
        workers = list(client.scheduler_info(n_workers=-1)["workers"])
        if not workers:
            raise RhosightError(f"{scheduler}: has no workers; start some with `dask worker`")
        shared_plan = client.scatter(plan, broadcast=True, hash=False)
        futures = [
            client.submit(
                run_jobs, shared_plan, unfinished, folder, None, log, workers=[worker], pure=False
            )
            for worker in workers
        ]
        client.gather(futures)
