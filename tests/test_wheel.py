"""The wheel, installed into an empty environment by pip, pipx or uv, predicts there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

import rhosight

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
LARGEST = 90e6
"""Bytes; PyPI takes up to 100 MB."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of RHOSIGHT_WHEEL (``make wheel``), or a new one."""
    if given := os.environ.get("RHOSIGHT_WHEEL"):
        return Path(given).resolve()
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_size(wheel: Path):
    assert wheel.stat().st_size < LARGEST


def pip(wheel: Path, folder: Path) -> Path:
    venv.create(folder / "venv", with_pip=True)
    command = [folder / "venv/bin/pip", "install", "--quiet", "--no-compile", "-c", CONSTRAINTS]
    subprocess.run([*command, wheel], check=True)
    return folder / "venv/bin/rhosight"


def pip_networks(wheel: Path, folder: Path) -> Path:
    """With PyTorch; the other installations are light."""
    program = pip(wheel, folder)
    command = [program.with_name("pip"), "install", "--quiet", "--no-compile", "-c", CONSTRAINTS]
    subprocess.run([*command, f"rhosight[networks] @ {wheel.as_uri()}"], check=True)
    return program


def pipx(wheel: Path, folder: Path) -> Path:
    places = {"PIPX_HOME": str(folder / "home"), "PIPX_BIN_DIR": str(folder / "bin")}
    command = [sys.executable, "-m", "pipx", "install", "--python", sys.executable]
    command += ["--pip-args", f"--no-compile -c {CONSTRAINTS}"]
    subprocess.run([*command, wheel], check=True, env=os.environ | places)
    return folder / "bin/rhosight"


def uv(wheel: Path, folder: Path) -> Path:
    places = {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "bin")}
    places["UV_CACHE_DIR"] = str(folder / "cache")  # on the disk of the tools: files are linked
    if links := os.environ.get("PIP_FIND_LINKS"):
        places["UV_FIND_LINKS"] = links
    command = [sys.executable, "-m", "uv", "tool", "install", "--quiet", "-c", CONSTRAINTS]
    subprocess.run(
        [*command, "--python", sys.executable, wheel], check=True, env=os.environ | places
    )
    return folder / "bin/rhosight"


@pytest.mark.parametrize("installed", [pip, pip_networks, pipx, uv])
def test_an_empty_environment_predicts(
    installed: Callable[[Path, Path], Path], wheel: Path, tmp_path: Path
):
    """From a density and from a structure; nothing of the source tree is in reach."""
    program = installed(wheel, tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    silicon = rhosight.load_dataset("mp-fcc")["mp-149"]
    silicon.density.to_chgcar(work / "CHGCAR")
    silicon.structure.to(filename=str(work / "Si.cif"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment["HF_HUB_OFFLINE"] = "1"

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [program, *arguments],
            cwd=work, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    here = rhosight.load_model("best").predict_intervals([rhosight.read_density(work / "CHGCAR")])
    found = json.loads(run("predict", "best", "CHGCAR", "--format", "json"))
    for target in ("formation_energy_per_atom", "efermi", "bulk_modulus_vrh"):
        assert found["predictions"][0][target] == pytest.approx(here[target].iloc[0], rel=1e-6)
    by_structure = json.loads(run("predict", "no-dft", "Si.cif", "--format", "json"))
    assert 60 < by_structure["predictions"][0]["bulk_modulus_vrh"] < 120  # GPa; 98 in experiment
    assert "405 materials" in run("data", "info", "mp-fcc")
    run("image", "CHGCAR", "--out", "slices")
    assert (work / "slices" / "CHGCAR-total.png").exists()
    assert "predict" in run("--help")
    if installed is pip_networks:
        shares = run("explain", "CHGCAR", "--out", "why")
        assert re.search(r"\bdensity +[+-]\d", shares), shares  # beside composition and structure
    else:
        message = run("explain", "CHGCAR", "--out", "why", code=2)
        assert "pip install 'rhosight[networks]'" in message
    report = json.loads(run("doctor", "--json"))
    assert report["ok"]
    assert str(tmp_path) in report["findings"][0]["found"], "another Python answered"
