"""The code keeps the size and the manners that make it readable, and the README keeps its word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import rhosight
from rhosight.dataset import Dataset

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "rhosight"
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Files that Python or a tool asks for by name
REQUIRED = {"__init__.py", "__main__.py", "__pycache__", "py.typed"}

# Rooms of their own beside the sixteen entries: density prediction, design
LATER = {"ecd", "design"}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(text)


def test_the_top_of_the_package_is_short():
    entries = {path.name for path in PACKAGE.iterdir()} - REQUIRED
    assert len(entries - LATER) <= 16


def test_modules_and_functions_are_short():
    modules = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    functions = {
        (name, node.name, node.lineno): node.end_lineno - node.lineno + 1
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(modules) > 100 and len(functions) > 1000
    assert {name: lines for name, lines in modules.items() if lines > 450} == {}
    assert {name: lines for name, lines in functions.items() if lines > 60} == {}


def test_docstrings_begin_with_a_short_plain_summary():
    summaries = {
        (name, getattr(node, "name", "module"), getattr(node, "lineno", 1)): text.splitlines()[0]
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (text := ast.get_docstring(node))
    }
    assert len(summaries) > 1000
    quaint = ("What", "Whether", "How", "Of", "That", "Which", "Why", "Where")
    assert {k: v for k, v in summaries.items() if v.split()[0].rstrip(":,") in quaint} == {}
    assert {key: text for key, text in summaries.items() if len(text) > 80} == {}


def test_public_names_are_few_and_load():
    assert len(rhosight.__all__) <= 25
    for name in rhosight.__all__:
        assert getattr(rhosight, name) is not None
    assert callable(rhosight.explain)


def test_the_readme_is_one_screen():
    assert len(README.splitlines()) <= 120
    assert len(README.split()) <= 900


def test_the_readme_prints_what_python_prints(
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    code, printed = re.search(
        r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL
    ).groups()
    assert sum(bool(line) for line in code.splitlines()) <= 5
    dataset["mp-149"].density.to_chgcar(tmp_path / "CHGCAR")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    ours, said = (
        dict(line.split(maxsplit=1) for line in text.splitlines())
        for text in (capsys.readouterr().out, printed)
    )
    assert ours.keys() == said.keys()
    for name, value in said.items():
        number = pd.to_numeric(value, errors="coerce")
        if pd.isna(number):
            assert ours[name] == value
        else:  # another processor has other last digits
            assert float(ours[name]) == pytest.approx(number, rel=1e-4)
