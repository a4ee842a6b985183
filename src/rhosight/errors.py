"""The one error that a user is meant to read: what is wrong, where, and the cure."""

from __future__ import annotations


class RhosightError(Exception):
    """Bad input or a missing resource. The message is one line that names the file or the
    material and the cure; the command line prints it and exits with code 2."""
