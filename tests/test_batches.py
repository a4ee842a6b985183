"""One failing material stops no other, and an interruption keeps what was done."""

from __future__ import annotations

import csv
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rhosight import RhosightError
from rhosight.cli import app
from rhosight.cli.batches import work_through

FILES = [f"file-{number}" for number in range(40)]


def run(work: Callable[[list[str]], list[str]], files: list[str] = FILES):
    return work_through(files, list, work, lambda *_: None, "done")


def fail_at(*names: str, error: BaseException) -> Callable[[list[str]], list[str]]:
    def work(part: list[str]) -> list[str]:
        if set(part) & set(names):
            raise error
        return part

    return work


def test_files_that_fail_are_named_and_the_others_done():
    outcome = run(fail_at("file-3", "file-20", error=ValueError("x must be finite\nmore")))
    done = [name for part in outcome.results for name in part]
    assert done == [name for name in FILES if name not in ("file-3", "file-20")]
    assert list(outcome.bad) == ["file-3", "file-20"] and not outcome.interrupted
    reason = outcome.bad["file-3"]
    assert "ValueError: x must be finite" in reason and "--debug" in reason and "\n" not in reason


def test_an_interruption_keeps_what_was_done():
    outcome = run(fail_at("file-20", error=KeyboardInterrupt()))
    done = [name for part in outcome.results for name in part]
    assert outcome.interrupted and 10 < len(done) <= 20 and done == FILES[: len(done)]


def test_a_queue_that_ends_the_job_interrupts():
    def work(part: list[str]) -> list[str]:
        if "file-20" in part:
            os.kill(os.getpid(), signal.SIGTERM)
        return part

    before = signal.getsignal(signal.SIGTERM)
    outcome = run(work)
    assert outcome.interrupted and 10 < outcome.succeeded == sum(map(len, outcome.results)) <= 20
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_first_failure_is_raised_if_nothing_succeeds():
    with pytest.raises(RhosightError, match=r"file-0: rhosight failed .*MemoryError"):
        run(fail_at(*FILES, error=MemoryError()))
    with pytest.raises(RhosightError, match=r"^bad$"):
        run(fail_at(*FILES, error=RhosightError("bad")))


def test_an_absurd_value_stops_no_other_file(dataset, tmp_path: Path):
    good, bad = tmp_path / "good.vasp", tmp_path / "bad.vasp"
    density = dataset["mp-149"].density
    density.to_chgcar(good)
    lines = good.read_text().splitlines()
    first = (
        next(i for i, line in enumerate(lines) if line.split() == [*map(str, density.shape)]) + 1
    )
    lines[first] = " ".join(["0.17557+106", *lines[first].split()[1:]])
    bad.write_text("\n".join(lines) + "\n")
    files = [str(good), str(bad), str(tmp_path / "absent.vasp")]
    result = CliRunner().invoke(app, ["predict", "best", *files, "--format", "csv"])
    assert result.exit_code == 1
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert row["material_id"] == str(good) and row["formula"] == "Si"
    assert "bad.vasp" in result.stderr and "more than at any nucleus" in result.stderr
    assert "absent.vasp: no such file" in result.stderr and "Traceback" not in result.stderr
