"""Read a text file in pieces: lines of a header, then millions of numbers.

The first bytes tell whether the file is compressed. Memory is bounded by one piece and the
requested numbers, whatever the file contains or declares.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import RhosightError, first_line

MAX_BYTES = 4 * 2**30
"""Maximum size of the text of one file, in bytes after decompression. 800³ values of a CHGCAR need
twice that; files that one worker of a build meets need far less."""

HEADER_BYTES = 16 * 2**20
"""Maximum size of the text above the numbers, in bytes: two hundred thousand atoms."""

PIECE = 2**20
"""Text held in memory at once, in bytes."""

_LONGEST_LINE = 2**16
_SHORTEST_VALUE = 2  # bytes: a digit and a blank

_MAGIC: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_CUT_NUMBER = "truncated within its last number; copy or write the file again"
_BLANKS = b" \t\r\n"
_BLANK_RUN = re.compile(rb"[ \t\r\n]+")
_WORD = re.compile(rb"[^ \t\r\n]+")
_KEYWORDS = (b"augmentation", b"END_", b"BEGIN_")  # found in place of missing numbers
_NUMBER = re.compile(
    rb"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+|[+-]\d{3})?|nan|inf(?:inity)?)",
    re.IGNORECASE,
)
# Fortran drops the E of an exponent of three digits, 0.12345678901-101, and writes D in place of
# E where the number has double precision, 0.123D+01
_FORTRAN_EXPONENT = re.compile(rb"(?<=[\d.])(?:[dD](?=[+-]?\d)|(?=[+-]\d{3}(?:\s|$)))")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class TextStream:
    """The lines and numbers of a text file, in order.

    Parameters
    ----------
    path
        A file, plain or compressed with gzip, bzip2 or xz.
    max_bytes
        Decompressed bytes after which reading stops with an error. :meth:`allow` lowers the limit
        once a header tells the size of the rest.
    piece
        Bytes to decompress and hold at once.

    Raises
    ------
    RhosightError
        If there is no such file, or it is a folder. All methods raise it for unreadable content.
    """

    def __init__(
        self, path: str | os.PathLike, max_bytes: int = MAX_BYTES, piece: int = PIECE
    ) -> None:
        self.path = Path(path)
        self.max_bytes = max_bytes
        self.line_number = 0
        """Number of the last line read, from 1."""
        self.open_end = False
        """Whether the file, once read, ends without a line end or blank."""
        self._piece = piece
        self._limit = min(HEADER_BYTES, max_bytes)
        self._read = 0
        self._buffer = b""
        self._at = 0
        self._ended = False
        self._first = self._last = b""
        if self.path.exists() and not (self.path.is_file() or self.path.is_dir()):
            raise RhosightError(f"{path}: is not a regular file; give the file itself")
        try:
            self._raw = open(self.path, "rb")  # noqa: SIM115, closed by __exit__
        except FileNotFoundError as error:
            raise RhosightError(f"{path}: no such file") from error
        except IsADirectoryError as error:
            raise RhosightError(f"{path}: is a folder; give the CHGCAR file in it") from error
        except (OSError, ValueError) as error:
            raise RhosightError(f"{path}: cannot be read ({first_line(error)})") from error
        self._size = os.fstat(self._raw.fileno()).st_size
        self.start = self._raw.read(8)
        """The first bytes of the file, before decompression."""
        self._raw.seek(0)
        if _is_utf16(self.start):
            self._raw.close()
            raise RhosightError(f"{path}: is text in UTF-16; save it as plain text (UTF-8)")
        opened = next(
            (make for magic, make in _MAGIC.items() if self.start.startswith(magic)), None
        )
        self.compressed = opened is not None
        self._file: Any = opened(self._raw) if opened else self._raw

    def __enter__(self) -> TextStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._raw.close()

    def error(self, message: str) -> RhosightError:
        """Return an error that names the file."""
        return RhosightError(f"{self.path}: {message}")

    def allow(self, further: int) -> None:
        """Permit this many bytes beyond those consumed so far, within ``max_bytes``."""
        taken = self._read - (len(self._buffer) - self._at)
        self._limit = min(taken + further, self.max_bytes)

    def read_line(self) -> bytes | None:
        """Return the next line without its end; None after the last."""
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            if len(self._buffer) - self._at > _LONGEST_LINE or not self._fill():
                end = len(self._buffer)
                break
        if end - self._at > _LONGEST_LINE:
            raise self.error("not a text file of a density; give a CHGCAR, cube or XSF file")
        if self._at == len(self._buffer):
            return None
        line = self._buffer[self._at : end]
        self._at = min(end + 1, len(self._buffer))
        self.line_number += 1
        return line.removesuffix(b"\r")

    def read_text(self) -> bytes | None:
        """Return the next line that is not empty, stripped; None after the last."""
        while True:
            if blanks := _BLANK_RUN.match(self._buffer, self._at):
                self._take(blanks.end() - self._at)
            if self._at < len(self._buffer):
                return (self.read_line() or b"").strip()
            if not self._fill():
                return None

    def read_all(self) -> bytes:
        """Return the rest of the file; its lines may have any length, and end in LF."""
        while self._fill():
            pass
        rest = self._buffer[self._at :]
        self._at = len(self._buffer)
        return rest.replace(b"\r\n", b"\n")

    def read_row(self, count: int, what: str) -> list[float]:
        """Return the numbers at the beginning of the next line, all finite.

        Raises
        ------
        RhosightError
            If there are fewer than ``count``; the message names the line and ``what`` it should
            contain.
        """
        words = (self.read_line() or b"").split()
        end = next((i for i, word in enumerate(words) if not is_number(word)), len(words))
        numbers = [to_number(word) for word in words[:end]]
        if len(numbers) < count or not np.isfinite(numbers).all():
            shown = quote(b" ".join(words))
            raise self.error(f"line {self.line_number} should hold {what}, found {shown}")
        return numbers

    def check_nothing_follows(self, count: int, what: str) -> None:
        """Raise if anything follows the ``count`` numbers read last."""
        further = self.read_rest_of_line() or self.read_text()
        if further is None:
            return
        shown = quote(further)
        raise self.error(
            f"line {self.line_number}: {what} declares {count} values, {shown} follows them; the "
            "header contradicts the data"
        )

    def read_numbers(
        self, count: int, what: str, stop: re.Pattern[bytes] | None = None
    ) -> np.ndarray:
        """Return the next ``count`` numbers, across lines, shape (count,), float64.

        Parameters
        ----------
        count
            Number of values; checked against the size of the file before memory is allocated.
        what
            The object that needs them, for messages: "the grid 10×12×9".
        stop
            A line of whole numbers that begins something else: values before it are too few.

        Raises
        ------
        RhosightError
            If there are too few, or one is not a number; the message names its line.
        """
        self._check_possible(count, what)
        try:
            values = np.empty(count)  # the system allocates its pages as they are filled
        except (MemoryError, ValueError) as error:
            raise self.error(f"{what} needs {count} values: more than memory holds") from error
        filled = 0
        while filled < count:
            text = self._read_whole_words()
            if not text:
                raise self._make_cut_error(what, count, filled)
            starts, ends = _split_words(text)
            n = min(len(starts), count - filled)
            if n == 0:
                self._take(len(text))
                continue
            if n < len(starts):
                text = text[: ends[n - 1]]
            # search only where there are whole numbers at all
            if stop and text.count(b".") < n and (end := stop.search(text)):
                raise self._make_cut_error(what, count, filled + len(text[: end.start()].split()))
            values[filled : filled + n] = self._parse(
                text, starts[:n], ends[:n], what, count, filled
            )
            if filled == 0:
                self._first = text[starts[0] : ends[0]]
            self._last = text[starts[n - 1] : ends[n - 1]]
            self._take(len(text))
            filled += n
        return values

    def read_rest_of_line(self) -> bytes:
        """Return the rest of the line on which the numbers ended, stripped."""
        return (self.read_line() or b"").strip()

    @property
    def last_number(self) -> bytes:
        """The last number as written in the file."""
        return self._last

    def check_last_number(self) -> None:
        """Raise if the file ends within its last number.

        Programs end their last line. If that end is missing, the last number must have the format
        of the first: as many digits before the point, after it, and in the exponent.
        """
        if self.open_end and number_format(self._first) != number_format(self._last):
            raise self.error(_CUT_NUMBER)

    def _fill(self) -> bool:
        """Read one more piece; return False at the end of the file."""
        if self._ended:
            return False
        try:
            piece = self._file.read(self._piece)
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            raise self.error(
                f"cannot be read ({first_line(error)}); copy or compress it again"
            ) from error
        if not piece:
            self._ended = True
            return False
        self._read += len(piece)
        self.open_end = piece[-1] not in _BLANKS
        if self._read == len(piece):
            piece = piece.removeprefix(_BYTE_ORDER_MARK)
        self._buffer = self._buffer[self._at :] + piece
        self._at = 0
        if self._read > self._limit + 2 * self._piece:
            raise self.error(
                f"longer than the {self._limit / 2**20:.0f} MiB that its header accounts for; "
                "damaged, or not a density file"
            )
        return True

    def _take(self, length: int) -> None:
        self.line_number += self._buffer.count(b"\n", self._at, self._at + length)
        self._at += length

    def _read_whole_words(self) -> bytes:
        """Return the buffered text up to its last line end or else last blank."""
        while True:
            if len(self._buffer) - self._at < _LONGEST_LINE and self._fill():
                continue
            if self._ended:
                return self._buffer[self._at :]
            end = self._buffer.rfind(b"\n", self._at)
            if end < 0:
                end = self._buffer.rfind(b" ", self._at)
            if end >= 0:
                return self._buffer[self._at : end + 1]
            if len(self._buffer) - self._at > _LONGEST_LINE:
                shown = quote(self._buffer[self._at : self._at + 40])
                raise self.error(f"line {self.line_number + 1}: {shown}... is not a number")
            self._fill()

    def _check_possible(self, count: int, what: str) -> None:
        need = _SHORTEST_VALUE * count - 1
        if not self.compressed:
            left = self._size - self._read + len(self._buffer) - self._at
            if need > left:
                at_most = (left + 1) // _SHORTEST_VALUE
                raise self.error(
                    f"truncated: {what} needs {count} values, the block holds {at_most} at most; "
                    "copy or write the file again"
                )
        if need > self.max_bytes:
            raise self.error(
                f"{what} needs {count} values, more than a file of {self.max_bytes / 2**30:.3g} "
                "GiB can hold; if that is intended, raise max_bytes"
            )

    def _make_cut_error(self, what: str, count: int, present: int) -> RhosightError:
        return self.error(
            f"truncated: {what} needs {count} values, the block holds {present}; copy or write the "
            "file again"
        )

    def _parse(
        self,
        text: bytes,
        starts: np.ndarray,
        ends: np.ndarray,
        what: str,
        count: int,
        before: int,
    ) -> np.ndarray:
        """Return the words of ``text`` as numbers; the other arguments are for messages."""
        try:
            return _to_float(text, starts, ends)
        except pa.ArrowInvalid:
            words = enumerate(_WORD.finditer(text))
            wrong = next(((i, w) for i, w in words if not is_number(w[0])), None)
        if wrong is None:
            text = write_exponents(text)
            return _to_float(text, *_split_words(text))
        i, word = wrong
        last = self._ended and self.open_end and self._at + word.end() == len(self._buffer)
        if word[0].startswith(_KEYWORDS) or (last and before + i + 1 < count):
            raise self._make_cut_error(what, count, before + i)
        if last:
            raise self.error(_CUT_NUMBER)
        line = self.line_number + text.count(b"\n", 0, word.start()) + 1
        shown = quote(word[0])
        raise self.error(f"line {line}: {shown} is not a number; write the file again")


def _is_utf16(start: bytes) -> bool:
    """Return whether text has two bytes for each letter, with or without a mark."""
    every_second = len(start) >= 4 and not (any(start[::2]) and any(start[1::2]))
    return start.startswith(_UTF16) or (every_second and any(start))


def is_number(word: bytes) -> bool:
    """Return whether this is a number as programs write it.

    Fortran's exponents without E are included.
    """
    return _NUMBER.fullmatch(word) is not None


def to_number(word: bytes) -> float:
    """Return the value of a word of which :func:`is_number` is true."""
    return float(write_exponents(word))


def write_exponents(text: bytes) -> bytes:
    """Return a text with 1.5E+01 for Fortran's 1.5D+01."""
    return _FORTRAN_EXPONENT.sub(b"E", text)


def number_format(token: bytes) -> tuple[int, int, int]:
    """Return the numbers of digits before the point, after it, and in the exponent.

    Leading zeros do not count, nor do any digits before the point if there is an exponent.
    """
    mantissa, _, exponent = token.upper().replace(b"D", b"E").lstrip(b"+-").partition(b"E")
    whole, _, decimals = mantissa.partition(b".")
    return 0 if exponent else len(whole.lstrip(b"0")), len(decimals), len(exponent.lstrip(b"+-"))


def quote(content: bytes) -> str:
    """Return the beginning of some content for an error message, without noise."""
    text = content[:40].decode(errors="replace")
    return repr(text) if text.isprintable() and "\ufffd" not in text else "binary data"


def _split_words(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions where the words of a text start and end."""
    solid = np.empty(len(text) + 2, dtype=bool)
    solid[0] = solid[-1] = False
    np.greater(np.frombuffer(text, dtype=np.uint8), 32, out=solid[1:-1])
    edges = np.flatnonzero(solid[1:] != solid[:-1])
    return edges[::2], edges[1::2]


def _to_float(text: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the words of a text as float64, by Arrow's parser.

    It is three times as fast as NumPy's and as exact. Raises pa.ArrowInvalid for other words.
    """
    characters = text.translate(None, _BLANKS)
    offsets = np.zeros(len(starts) + 1, dtype=np.int32)
    np.cumsum(ends - starts, out=offsets[1:])
    if offsets[-1] != len(characters):
        raise pa.ArrowInvalid("control characters between the numbers")
    words = pa.StringArray.from_buffers(
        len(starts), pa.py_buffer(offsets), pa.py_buffer(characters)
    )
    return pc.cast(words, pa.float64()).to_numpy()
