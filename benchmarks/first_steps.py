"""Take 25 first steps of a new user, and measure the time of each.

    python benchmarks/first_steps.py [--no-bounds]

Silicon and HfC of the bundled dataset are written as VASP writes them. Each step is a command in a
process of its own, so that its time includes the start, or an action on the web page in headless
Chromium with the window of a phone. A step passes if its exit code, its output and its files are
those that a user expects. Seconds of the processor (user and system) are compared with bounds where
there are any: the clock also measures other programs. The exit code is 1 if a step fails, or takes
longer than its bound; ``--no-bounds`` only prints the times, as on a busy machine. The page needs
``rhosight[app]``, Playwright and Chromium; its steps are left out otherwise.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rhosight

CHROMIUM = Path("/usr/bin/chromium")
PORT = 7871
PHONE = {"width": 390, "height": 844}
FLAGS = ["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"]

NOTEBOOK = """
import rhosight
model = rhosight.load_model("best")
print(model)
print(rhosight.read_density("Si/CHGCAR"))
print(model.predict("Si/CHGCAR").round(2).to_string())
"""


@dataclass(frozen=True)
class Step:
    """A command and what it should do.

    Attributes
    ----------
    command
        Arguments of `rhosight`.
    says
        Part of its output or messages.
    code
        Its exit code.
    writes
        A file that it writes.
    bound
        Largest number of seconds of the processor.
    """

    command: str
    says: str = ""
    code: int = 0
    writes: str = ""
    bound: float = float("inf")


COMMANDS = (
    Step("--version", rhosight.__version__, bound=0.5),
    Step("--help", "Predict properties", bound=0.5),
    Step("predict --help", "--relax", bound=0.5),
    Step("predict best CHGCRA", "no such file", 2, bound=0.5),
    Step("predict bset Si/CHGCAR", "no such model", 2, bound=0.5),
    Step("doctor", "all "),
    Step("cite", "@article{massa2024transfer"),
    Step("data info mp-fcc", "405 materials"),
    Step("predict best Si/CHGCAR", "mp-149, in the training set", bound=3),
    Step("predict best .", "HfC/CHGCAR"),
    Step("predict best . --format csv --out table.csv", writes="table.csv"),
    Step("predict best Si/AECCAR0", "give the CHGCAR", 2),
    Step("predict no-dft Si.cif", "86"),
    Step("predict no-dft pressed.cif", "20 % smaller"),
    Step("predict no-dft pressed.cif --relax", "relaxed with CHGNet"),
    Step("predict best Si.cif", "predicted density, not SCF"),
    Step("density Si.cif -o predicted.CHGCAR", "expected error", writes="predicted.CHGCAR"),
    Step("image Si/CHGCAR --out slices", "1 slice", writes="slices/Si-total.png"),
    Step("image Si/CHGCAR --hkl 110 --format pdf --out p", writes="p/Si-total.pdf"),
    Step("explain Si/CHGCAR --out why", "density", writes="why", bound=10),
    Step("data build directory . mine.parquet --texts none", "3 materials", writes="mine.parquet"),
    Step("data validate mine.parquet", "mine.parquet"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-bounds", action="store_true")
    has_bounds = not parser.parse_args().no_bounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        results = [take_step(step, folder, has_bounds) for step in COMMANDS]
        results.append(measure_notebook(folder))
        results += browse(folder)
    print(f"{sum(results)} of {len(results)} steps passed")
    return int(not all(results))


def write_files(folder: Path) -> None:
    """Write two calculations, and structures; one is compressed by a fifth."""
    dataset = rhosight.load_dataset("mp-fcc")
    for material_id in ("mp-149", "mp-1002124"):
        material = dataset[material_id]
        own = folder / material.formula
        own.mkdir()
        material.density.to_chgcar(own / "CHGCAR")
        (own / "OUTCAR").write_text("something else\n")
    (folder / "Si" / "AECCAR0").write_bytes((folder / "Si" / "CHGCAR").read_bytes())
    dataset["mp-149"].structure.to(filename=str(folder / "Si.cif"))
    pressed = dataset["mp-1002124"].structure.copy()
    pressed.scale_lattice(0.8 * pressed.volume).to(filename=str(folder / "pressed.cif"))


def take_step(step: Step, folder: Path, has_bounds: bool) -> bool:
    """Run a command, print its time, and return whether it did what it should."""
    arguments = ["-m", "rhosight", *step.command.split()]
    code, output, seconds, cpu = run_process(arguments, folder)
    faults = []
    if code != step.code:
        faults.append(f"exit code {code}, not {step.code}")
    if step.says not in output:
        faults.append(f"does not say {step.says!r}")
    if step.writes and not (folder / step.writes).exists():
        faults.append(f"does not write {step.writes}")
    if has_bounds and cpu > step.bound:
        faults.append(f"more than {step.bound:g} s")
    print_result(f"rhosight {step.command}", seconds, cpu, faults)
    if faults:
        print(output)
    return not faults


def measure_notebook(folder: Path) -> bool:
    """Do what the first cells of a notebook do."""
    code, output, seconds, cpu = run_process(["-c", NOTEBOOK], folder)
    faults = [] if code == 0 and "bulk_modulus_vrh" in output else [output]
    print_result("python: load a model, read a density, predict", seconds, cpu, faults)
    return not faults


def run_process(arguments: list[str], folder: Path) -> tuple[int, str, float, float]:
    """Run Python; return exit code, output, seconds, and seconds of the processor."""
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    after = os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return done.returncode, done.stdout, time.perf_counter() - started, cpu


def browse(folder: Path) -> Iterator[bool]:
    """Take the last two steps: drop a file on the page, and ask for an explanation."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("the page: left out, needs Playwright")
        return
    if not CHROMIUM.exists():
        print(f"the page: left out, needs {CHROMIUM}")
        return
    command = [sys.executable, "-m", "rhosight", "serve", "--workers", "1", "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        while "running at" not in (line := server.stdout.readline()):
            if not line:
                raise SystemExit("the server does not start")
        with sync_playwright() as running:
            browser = running.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
            page = browser.new_page(viewport=PHONE)
            page.set_default_timeout(240_000)
            yield act("page: open it and drop a CHGCAR", lambda: drop_file(page, folder))
            yield act("page: explain, and save the numbers", lambda: explain(page))
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def act(name: str, action: Callable[[], list[str]]) -> bool:
    """Do something on the page, and print its time; its work is done by other processes."""
    started = time.perf_counter()
    faults = action()
    print_result(name, time.perf_counter() - started, None, faults)
    return not faults


def drop_file(page: Any, folder: Path) -> list[str]:
    """Drop a file and wait for everything that the page shows."""
    page.goto(f"http://127.0.0.1:{PORT}")
    page.wait_for_selector("#example")
    page.set_input_files("#file input[type=file]", folder / "Si" / "CHGCAR")
    page.wait_for_selector("#solid .js-plotly-plot")
    faults = [] if "Si" in page.inner_text(".rho-name") else ["does not name the crystal"]
    if page.locator(".rho-card").count() != 5:
        faults.append("does not show five properties")
    return faults


def explain(page: Any) -> list[str]:
    """Click the button of the explanation and download it."""
    page.click("#explain")
    with page.expect_download() as saved:
        page.click("text=Explanation as CSV")
    name = saved.value.suggested_filename
    return [] if name == "Si-explanation.csv" else [f"saves {name}"]


def print_result(name: str, seconds: float, cpu: float | None, faults: list[str]) -> None:
    processor = "" if cpu is None else f" ({cpu:.2f} of CPU)"
    print(
        f"{name}: {seconds:.2f} s{processor}{'; ' if faults else ''}{'; '.join(faults)}", flush=True
    )


if __name__ == "__main__":
    raise SystemExit(main())
