"""What one upload and one server may take: files come from anybody."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20

MAX_INDEX = 12
"""Of a plane that can be chosen: those of larger indices are hardly apart from each other."""

OFFSETS = (-10.0, 10.0)
"""Of a plane from the origin, interplanar spacings; beyond one the crystal repeats itself."""

WINDOWS = (1.0, 40.0)
"""Side of a slice, Å: a larger one has too few points for each atom."""


@dataclass(frozen=True)
class Limits:
    """Bounds of the web page; each has one sentence that an upload beyond it is answered with.

    Attributes
    ----------
    file_bytes
        Of an uploaded file as it is sent; refused before anything of it is stored.
    text_bytes
        Of a density file once decompressed: a small file may decompress without end.
    structure_bytes
        Of a CIF, which its parser holds in memory several times over.
    grid_points
        Of a density, all kinds of it on one grid.
    atoms
        In the cell.
    seconds
        That one job may run; its worker process is then killed and replaced.
    memory_bytes
        Beyond what a worker has when it is ready for its first job.
    waiting
        Jobs of all visitors that wait at a time.
    waiting_each
        Of these, jobs of one visitor.
    disk_bytes
        Of all uploads and densities that are kept for open pages.
    keep_seconds
        After which a density that nobody looked at is deleted, page open or not.
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
