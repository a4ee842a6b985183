"""Every code block of the documentation runs, page by page, as a reader would run it.

Fences of ``python`` and ``bash`` in README.md and docs/*.md are run in their order, in a folder
with a few real files of the bundled data. A block that cannot run here says so in the line above
it, ``<!-- not run: why -->``; so does one that takes longer than seconds, ``<!-- slow: why -->``.
"""

from __future__ import annotations

import glob
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

import rhosight
from rhosight.cli import main
from rhosight.dataset import Dataset

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = ("python", "bash")
SHOWN = ("text", "json", "fortran", "ini")
"""Languages of fences that are to be read: output, and input files of other codes."""

FENCE = re.compile(
    r"^(?P<indent> *)(?P<marks>(?:<!-- (?:not run|slow)[^\n]*-->\n+ *)?)"
    r"```(?P<language>\S*)[^\n]*\n"
    r"(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"<!-- (?P<word>not run|slow): (?P<reason>.{8,}?) -->")


@dataclass(frozen=True)
class Block:
    """A fence: where it begins, its language, its code, and how it is marked."""

    page: Path
    line: int
    language: str
    code: str
    mark: str
    reason: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        mark = MARK.search(match["marks"])
        indent = len(match["indent"])
        code = "".join(line[indent:] or "\n" for line in match["code"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start("code")) + 1
        word, reason = (mark["word"], mark["reason"]) if mark else ("", "")
        found.append(Block(page, line, match["language"], code, word, reason))
    return found


BLOCKS = {page.relative_to(ROOT).as_posix(): blocks_of(page) for page in PAGES}


@pytest.fixture
def desk(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages take for granted: a CHGCAR (Si), relaxed/<id>/CHGCAR of a dozen crystals with
    their moduli.csv, and structures/<id>.cif; of the training part, the smallest grids."""
    train = dataset[rhosight.split(dataset)[0]].require_targets(list(dataset.units))
    by_size = train.table.sort_values(["nsites", "cubic_lattice_constant"]).index
    few = train[by_size[:24].to_list()]
    dataset["mp-149"].density.to_chgcar(tmp_path / "CHGCAR")
    (tmp_path / "structures").mkdir()
    for material in few:
        folder = tmp_path / "relaxed" / material.material_id
        folder.mkdir(parents=True)
        material.density.to_chgcar(folder / "CHGCAR")
    for material in few[:3]:
        material.structure.to(filename=str(tmp_path / f"structures/{material.material_id}.cif"))
    few.table[["bulk_modulus_vrh"]].rename(
        columns={"bulk_modulus_vrh": "bulk_modulus_vrh (GPa)"}
    ).to_csv(tmp_path / "moduli.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(blocks: list[Block]) -> None:
    """Python in one namespace, as in one session; commands in the same folder."""
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        where = f"{block.page.name}:{block.line}"
        if block.language == "python":
            exec(compile("\n" * block.line + block.code, str(block.page), "exec"), names)
        else:
            for command in block.code.replace("\\\n", " ").splitlines():
                run_command(command, where)


def run_command(command: str, where: str) -> None:
    """A command of rhosight in this process, where its imports are done; others in bash."""
    words = shlex.split(command, comments=True)
    if not words:
        return
    if words[0] != "rhosight" or {"|", "&&", ">"} & set(words):
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True)
        return
    words = [name for word in words for name in (sorted(glob.glob(word)) or [word])]
    with mock.patch.object(sys, "argv", words), pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code, f"{where}: `{command}` ended with code {stop.value.code}"


def to_run(page: str, *, slow: bool) -> list[Block]:
    marks = ("", "slow") if slow else ("",)
    return [b for b in BLOCKS[page] if b.language in RUN and b.mark in marks]


@pytest.mark.parametrize("page", [page for page in BLOCKS if to_run(page, slow=False)])
def test_page(page: str, desk: Path):
    run_page(to_run(page, slow=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page, blocks in BLOCKS.items() if any(b.mark == "slow" for b in blocks)]
)
def test_page_with_its_slow_blocks(page: str, desk: Path):
    run_page(to_run(page, slow=True))


def test_every_block_runs_or_says_why_not():
    """No fence of an unknown language, in which code would go unnoticed; no mark without reason."""
    every = [block for blocks in BLOCKS.values() for block in blocks]
    fences = sum(len(re.findall(r"^ *```\S", page.read_text(), re.MULTILINE)) for page in PAGES)
    bare = sum(len(re.findall(r"^ *```$", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert fences == bare == len(every), "a fence without a language, or one that is not found"
    for block in every:
        assert block.language in (*RUN, *SHOWN), f"{block.page.name}:{block.line}"
    marks = sum(page.read_text().count("<!-- not run") for page in PAGES)
    marks += sum(page.read_text().count("<!-- slow") for page in PAGES)
    assert marks == sum(bool(block.reason) for block in every), "a mark without a reason or a fence"
    runnable = [block for block in every if block.language in RUN]
    left_out = [block for block in runnable if block.mark == "not run"]
    assert len(left_out) <= len(runnable) / 3, "too much of the documentation is not run"
