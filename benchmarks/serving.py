"""Measure the speed of the web page and its resistance to hostile uploads.

    python benchmarks/serving.py [--workers 2]

The script starts a server and measures the first view of the page in Chromium. It measures a
prediction from a 60³ CHGCAR (upload, queue, worker, answer), alone and for ten visitors at once.
Then it sends three rounds of 200 hostile uploads in parallel and records the memory and the files
of the server. Bounds, on two cores: 2 s for a first view, 5 s for a prediction, an error message
for each hostile file, no file left, and at most 5 % more memory after the third round than after
the second. The exit code is 1 if a bound is exceeded. The script needs ``rhosight[app]``, and
playwright with /usr/bin/chromium for the page.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import scipy.ndimage
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from rhosight.dataset import load_dataset
from rhosight.density import ChargeDensity

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from hostile import HOSTILE

PORT = 7977
URL = f"http://127.0.0.1:{PORT}"
VISITORS = 10
AT_ONCE = 40
UPLOADS = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    workers = parser.parse_args().workers
    command = [sys.executable, "-m", "rhosight", "serve", "--port", str(PORT)]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as kept:
        server = subprocess.Popen(
            [*command, "--workers", str(workers)], env={**os.environ, "TMPDIR": kept}
        )
        try:
            return measure(server.pid, Path(folder), Path(kept), workers)
        finally:
            server.terminate()
            server.wait(30)


def measure(pid: int, folder: Path, kept: Path, workers: int) -> int:
    chgcar = write_chgcar(folder / "CHGCAR")
    client = connect()
    for _ in range(2 * workers):  # warm up every worker
        client.predict(None, "mp-149", "total", api_name="/predict")
    view = min(first_view() for _ in range(3))
    print(f"first view of the page: {view:.2f} s; bound 2")
    alone = min(timed(client, chgcar) for _ in range(3))
    print(f"prediction from a 60³ CHGCAR: {alone:.2f} s; bound 5")
    visitors = [Client(URL, verbose=False) for _ in range(AT_ONCE)]
    with ThreadPoolExecutor(VISITORS) as threads:
        times = sorted(threads.map(lambda visitor: timed(visitor, chgcar), visitors[:VISITORS]))
    print(f"{VISITORS} visitors at once: {times[0]:.2f} s (first) to {times[-1]:.2f} s")

    files, used = hostile(folder), []
    for number in range(3):
        start = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            parts = [files[number::AT_ONCE] for number in range(AT_ONCE)]
            answers = [said for some in threads.map(refusals, visitors, parts) for said in some]
        used.append(memory(pid))
        print(
            f"{UPLOADS} hostile uploads, round {number + 1}: {time.perf_counter() - start:.1f} s, "
            f"{len(set(answers))} different messages, {used[-1]:.0f} MiB in all server processes"
        )
    for sentence in sorted(set(answers)):
        print("   ", sentence)
    for visitor in visitors:
        visitor.close()
    after = timed(client, chgcar)
    client.close()
    left = files_of(kept)  # files of open pages are deleted after the pages are closed
    for _ in range(30):
        if not left:
            break
        time.sleep(1)
        left = files_of(kept)
    print(f"prediction after the uploads: {after:.2f} s; files left: {sorted(left)}")
    return int(view > 2 or alone > 5 or used[2] > 1.05 * used[1] or bool(left))


def write_chgcar(path: Path) -> Path:
    """Write the bundled density of silicon on a 60³ grid."""
    density = load_dataset("mp-fcc")["mp-149"].density
    coarse = density.grid("total")
    factor = 60 / coarse.shape[0]
    grid = scipy.ndimage.zoom(coarse, factor, order=3, mode="grid-wrap", grid_mode=True)
    ChargeDensity(density.structure, {"total": grid}).to_chgcar(path)
    return path


def hostile(folder: Path) -> list[Path]:
    """Write files that are not densities, each in a separate folder."""
    # a large grid can be valid
    kinds = [kind for name, kind in HOSTILE.items() if name != "large grid"]
    found = []
    for number in range(UPLOADS):
        name, content, _ = kinds[number % len(kinds)]
        path = folder / str(number) / name
        path.parent.mkdir()
        path.write_bytes(content)
        found.append(path)
    return found


def connect() -> Client:
    while True:
        try:
            return Client(URL, verbose=False)
        except (OSError, ValueError, httpx.TransportError):
            time.sleep(0.5)


def timed(client: Client, path: Path) -> float:
    start = time.perf_counter()
    client.predict(handle_file(str(path)), "", "total", api_name="/predict")
    return time.perf_counter() - start


def refusals(client: Client, paths: list[Path]) -> list[str]:
    """Return the error message for each file; use one client per thread as intended."""
    answers = []
    for path in paths:
        try:
            client.predict(handle_file(str(path)), "", "total", api_name="/predict")
        except AppError as error:
            answers.append(str(error))
        else:
            raise AssertionError(f"{path} was accepted, but it should be rejected")
    return answers


def first_view() -> float:
    """Return the seconds until the controls are usable, with an empty cache."""
    from playwright.sync_api import sync_playwright

    flags = ["--headless", "--no-sandbox", "--disable-gpu"]
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = browser.new_page()
        start = time.perf_counter()
        page.goto(URL)
        page.wait_for_selector("#material input")
        seconds = time.perf_counter() - start
        browser.close()
    return seconds


def memory(pid: int) -> float:
    """Return the resident memory of the server and its workers in MiB, on Linux."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0.0
    for process in (str(pid), *children):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        total += next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    return total


def files_of(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    raise SystemExit(main())
