"""Limits of an upload and of the server: anybody may send files."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20

MAX_INDEX = 12
"""Largest Miller index that can be chosen: planes of larger indices lie hardly apart."""

OFFSETS = (-10.0, 10.0)
"""Allowed offsets from the origin, in interplanar spacings; the crystal repeats after one."""

WINDOWS = (1.0, 40.0)
"""Allowed sides of a slice, Å; a larger slice has too few points for each atom."""


CANDIDATES, PROPOSALS, CELLS = (20, 300), (1, 10), (1, 16)
"""Allowed numbers of crystals that a search tries, that it shows, and of atoms in their cells. A
crystal takes 0.05 s, and a picture 1 s."""


SEARCH_FACTOR = 5
"""A search may take this multiple of the time of other jobs."""


@dataclass(frozen=True)
class Limits:
    """Limits of the web page. An upload beyond a limit is refused with one sentence.

    Attributes
    ----------
    file_bytes
        Maximum size of an upload as it is sent. Larger files are refused before they are stored.
    text_bytes
        Maximum size of a density file after decompression: a small file may decompress without
        end.
    structure_bytes
        Maximum size of a CIF; its parser needs several times as much memory.
    grid_points
        Maximum number of grid points of a density.
    atoms
        Maximum number of atoms in the cell.
    seconds
        Maximum time of one job, see :meth:`seconds_of`. Its worker process is then killed and
        replaced.
    memory_bytes
        Maximum memory of a job, beyond what a worker uses when it is ready for its first job.
    waiting
        Maximum number of waiting jobs, of all visitors together.
    waiting_each
        Maximum number of waiting jobs of one visitor.
    disk_bytes
        Maximum size of all uploads and densities that are kept for open pages.
    keep_seconds
        Time after which an unused density is deleted, even if its page is open.
    """

    file_bytes: int = 256 * MIB
    text_bytes: int = 768 * MIB
    structure_bytes: int = 2 * MIB
    grid_points: int = 8_000_000
    atoms: int = 200
    seconds: float = 90.0
    memory_bytes: int = 3072 * MIB
    waiting: int = 400
    waiting_each: int = 250
    disk_bytes: int = 4096 * MIB
    keep_seconds: float = 1800.0

    def seconds_of(self, task: str) -> float:
        """Return the maximum time of a task; a search predicts hundreds of crystals."""
        return SEARCH_FACTOR * self.seconds if task == "design" else self.seconds
