"""The error for users: it says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_NETWORKS = ("captum", "lightning", "peft", "timm", "torch", "torchvision", "transformers")
"""Libraries of the extra ``networks``, as they are imported."""


class RhosightError(Exception):
    """Report bad input or a missing resource.

    The message is one line that names the file or the material and the cure. The command line
    prints it and exits with code 2.
    """


@contextmanager
def name_missing_extra() -> Iterator[None]:
    """Turn a failed import into an error that names the extra to install.

    Raises
    ------
    RhosightError
        If PyTorch or one of the libraries around it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _NETWORKS:
            raise
        raise RhosightError(
            f"networks, explanations and predicted densities need {library}, which is not "
            "installed: pip install 'rhosight[networks]'"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or its type if it has no text."""
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
