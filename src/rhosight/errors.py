"""The one error that a user is meant to read: what is wrong, where, and the cure."""

from __future__ import annotations


class RhosightError(Exception):
    """Bad input or a missing resource. The message is one line that names the file or the
    material and the cure; the command line prints it and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its name where it says nothing."""
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
