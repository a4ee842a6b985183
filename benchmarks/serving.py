"""How fast the web page is, and what it stands.

    python benchmarks/serving.py [--workers 2]

Starts a server and measures: the first view of the page in Chromium; a prediction from a 60³ CHGCAR
(upload, queue, worker, answer), alone and for ten visitors at once; and 200 hostile uploads in
parallel, with the memory and the files of the server before and after. Needs ``rhosight[app]``, and
playwright with /usr/bin/chromium for the page.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import scipy.ndimage
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from rhosight.dataset import load_dataset
from rhosight.density import ChargeDensity

PORT = 7977
URL = f"http://127.0.0.1:{PORT}"
HEAD = b"Si\n1.0\n3 0 0\n0 3 0\n0 0 3\nSi\n1\nDirect\n0 0 0\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    workers = parser.parse_args().workers
    command = [sys.executable, "-m", "rhosight", "serve", "--port", str(PORT)]
    server = subprocess.Popen([*command, "--workers", str(workers), "--max-file", "32"])
    try:
        with tempfile.TemporaryDirectory() as folder:
            measure(server.pid, Path(folder), workers)
    finally:
        server.terminate()
        server.wait(30)


def measure(pid: int, folder: Path, workers: int) -> None:
    chgcar = write_chgcar(folder / "CHGCAR")
    client = connect()
    for _ in range(2 * workers):  # every worker is warm
        client.predict(None, "mp-149", "total", api_name="/predict")
    print(f"first view of the page: {first_view():.2f} s")
    print(f"prediction from a 60³ CHGCAR: {timed(client, chgcar):.2f} s")
    visitors = [Client(URL, verbose=False) for _ in range(10)]
    with ThreadPoolExecutor(10) as threads:
        times = sorted(threads.map(lambda visitor: timed(visitor, chgcar), visitors))
    print(f"ten visitors at once: {times[0]:.2f} s for the first, {times[-1]:.2f} s for the last")

    files = hostile(folder)
    for number in range(2):  # the first round allocates what the second uses again
        before = memory(pid)
        start = time.perf_counter()
        with ThreadPoolExecutor(40) as threads:
            answers = list(threads.map(lambda i: refusal(visitors[i % 10], files[i]), range(200)))
        seconds = time.perf_counter() - start
        distinct = len(set(answers))
        print(
            f"200 hostile uploads, round {number + 1}: {seconds:.1f} s, {distinct} different "
            f"sentences; memory of the server {before:.0f} MiB before, {memory(pid):.0f} after"
        )
    for sentence in sorted(set(answers)):
        print("   ", sentence)
    for visitor in visitors:
        visitor.close()
    print(f"after them, a prediction: {timed(client, chgcar):.2f} s")


def write_chgcar(path: Path) -> Path:
    """The bundled density of silicon on a 60³ grid."""
    density = load_dataset("mp-fcc")["mp-149"].density
    coarse = density.grid("total")
    factor = 60 / coarse.shape[0]
    grid = scipy.ndimage.zoom(coarse, factor, order=3, mode="grid-wrap", grid_mode=True)
    ChargeDensity(density.structure, {"total": grid}).to_chgcar(path)
    return path


def hostile(folder: Path) -> list[Path]:
    """Two hundred files that are no density, each in a folder of its own."""
    noise = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes()
    kinds = [
        ("CHGCAR", b""),
        ("CHGCAR", noise),
        ("CHGCAR", HEAD + b" 9 9 9\n1 2 3\n"),
        ("CHGCAR", HEAD + b" 99999 99999 99999\n1 2 3\n"),
        ("CHGCAR", HEAD + b" 2 2 2\n" + b"nan " * 8),
        ("CHGCAR.gz", gzip.compress(HEAD + b" 9 9 9\n" + b"1.0\n" * 10**7)),
        ("CHGCAR.xz", b"\xfd7zXZ\x00" + noise),
        ("a.cif", b"data_x\n_cell_length_a 1\n"),
        ("a.cube", b"1 1 1 1\n" * 40),
        ("a.pkl", b"\x80\x04\x95cos\nsystem\n"),
    ]
    found = []
    for number in range(200):
        name, content = kinds[number % len(kinds)]
        (folder / str(number)).mkdir()
        path = folder / str(number) / name
        path.write_bytes(content)
        found.append(path)
    return found


def connect() -> Client:
    while True:
        try:
            return Client(URL, verbose=False)
        except (OSError, ValueError):
            time.sleep(0.5)


def timed(client: Client, path: Path) -> float:
    start = time.perf_counter()
    client.predict(handle_file(str(path)), "", "total", api_name="/predict")
    return time.perf_counter() - start


def refusal(client: Client, path: Path) -> str:
    try:
        client.predict(handle_file(str(path)), "", "total", api_name="/predict")
    except AppError as error:
        return str(error)
    raise AssertionError(f"{path} was not refused")


def first_view() -> float:
    """Seconds from the address to controls that can be used, with an empty cache."""
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
    """Resident memory of the server without its workers, MiB; Linux."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
