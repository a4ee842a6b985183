"""``rhosight doctor`` and what a newcomer meets first: help by task, completion, version."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import rhosight
from rhosight.cli.doctor import PAPER_WEIGHTS

KEY = "not-to-be-shown-0123456789"


def run(
    *arguments: str, path: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The real command, the model hub forbidden; ``path`` goes before all other packages."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "400", **environment}
    if path:
        environment["PYTHONPATH"] = f"{path}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    command = [sys.executable, "-m", "rhosight", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_a_sound_installation(tmp_path):
    done = run("doctor", "--json", MP_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    found = {finding["subject"]: finding for finding in report["findings"]}
    assert report["ok"]
    assert rhosight.__version__ in found["versions"]["found"]
    for name in ("best", "no-dft", "tf_efficientnet_lite0", "all-MiniLM-L6-v2"):
        assert found[name]["status"] == "ok"
    assert set(PAPER_WEIGHTS) <= set(found)
    assert found["MP_API_KEY"]["status"] == "ok" and KEY not in done.stdout + done.stderr
    for finding in report["findings"]:
        if finding["topic"] == "extras" and finding["status"] == "absent":
            assert finding["cure"] == f"pip install 'rhosight[{finding['subject']}]'"


def test_what_is_broken_is_named_with_its_cure(tmp_path):
    """Weights of another content, a library that is absent, one that is too old, no API key."""
    package = Path(rhosight.__file__).parent
    shutil.copytree(package, tmp_path / "rhosight", ignore=shutil.ignore_patterns("*.parquet"))
    with open(tmp_path / "rhosight/data/models/best/model.safetensors", "r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    about = tmp_path / "rhosight-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: rhosight\nVersion: 0.1.0\nProvides-Extra: mp\n"
        "Requires-Dist: no-such-library>=1\nRequires-Dist: numpy>=1000\nRequires-Dist: scipy\n"
        "Requires-Dist: no-such-client>=2; extra == 'mp'\n"
    )
    done = run("doctor", path=tmp_path, MP_API_KEY="", PMG_MAPI_KEY="")
    assert done.returncode == 1
    for words in (
        "not the weights that came with rhosight",
        "pip install 'no-such-library>=1'",
        "pip install 'numpy>=1000'",
        "pip install 'rhosight[mp]'",
        "export MP_API_KEY=...",
        "3 items must be repaired",
    ):
        assert words in done.stdout, words
    assert "scipy" not in done.stdout


def test_help_groups_the_commands_by_task():
    text = run("--help").stdout
    order = [text.index(word) for word in ("─ Start", " doctor ", "─ Use a model", " predict ")]
    assert order == sorted(order)
    assert "Commands ─" not in text, "a command without a panel"


def test_version():
    assert run("--version").stdout.strip() == rhosight.__version__


@pytest.mark.parametrize(
    "shell, typed",
    [
        ("bash", {"COMP_WORDS": "rhosight pre", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "rhosight pre"}),
    ],
)
def test_completion(shell, typed):
    """What the shell sources, and what it is told when someone types `rhosight pre` and Tab."""
    name = "_RHOSIGHT_COMPLETE"
    command = [str(Path(sysconfig.get_path("scripts")) / "rhosight")]

    def answer(**environment: str) -> str:
        environment = {**os.environ, **environment}
        return subprocess.run(command, capture_output=True, text=True, env=environment).stdout

    script = answer(**{name: f"source_{shell}"})
    assert "_rhosight_completion" in script and f"complete_{shell}" in script
    found = answer(**{name: f"complete_{shell}"}, **typed)
    assert "predict" in found and "pretrain" in found and "crossval" not in found
