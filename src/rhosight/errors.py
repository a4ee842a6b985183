"""The error for users: it says what is wrong, where, and what to do."""

from __future__ import annotations


class RhosightError(Exception):
    """Report bad input or a missing resource.

    The message is one line that names the file or the material and the cure. The command line
    prints it and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or its type if it has no text."""
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
