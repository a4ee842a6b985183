"""Write the training histories of jobs as TensorBoard logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import RhosightError
from .jobs import Job, JobFolder, order_jobs


def log_jobs(jobs: Sequence[Job], folder: JobFolder) -> None:
    """Log the jobs without a log, such as those that finished on another machine.

    Raises
    ------
    RhosightError
        If TensorBoard is not installed.
    """
    write = make_logger(folder)
    for job in order_jobs(jobs):
        if not _log_folder(job, folder).exists():
            write(job)


def make_logger(folder: JobFolder) -> Callable[[Job], None]:
    """Return a function that logs the history of a job as one run of TensorBoard.

    Raises
    ------
    RhosightError
        If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RhosightError(
            "--log tensorboard: TensorBoard is not installed; pip install 'rhosight[tensorboard]'"
        ) from error

    def write(job: Job) -> None:
        history = folder.history(job)
        if history.empty:
            return
        with SummaryWriter(str(_log_folder(job, folder))) as writer:
            for (model, stage), rows in history.groupby(["model", "stage"], sort=False):
                scores = rows.drop(columns=["model", "stage", "epoch"]).dropna(axis=1)
                for name, values in scores.items():
                    for epoch, value in zip(rows["epoch"], values, strict=True):
                        writer.add_scalar(f"{model}, {stage}/{name}", value, int(epoch))

    return write


def _log_folder(job: Job, folder: JobFolder) -> Path:
    return folder.folder.parent / "tensorboard" / job.name
