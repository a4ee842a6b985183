"""Limit the threads of the numerical libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Let the numerical libraries use one thread; also a decorator.

    For small arrays, such as tables of some hundred rows: threads would wait for one another longer
    than they work, and on a busy machine for much longer.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
