"""The web page and its API: real materials, hostile files, workers that die, and what is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from hostile import HEADER, HOSTILE, HOSTILE_ARGUMENTS, SEARCH
from rhosight.dataset import Dataset
from rhosight.density import ChargeDensity
from rhosight.errors import RhosightError
from rhosight.version import __version__

# the server imports gradio, these tests need not
if not find_spec("gradio"):
    pytest.skip("the web page needs rhosight[app]", allow_module_level=True)
gradio_client = pytest.importorskip("gradio_client")

from rhosight.app.jobs import Jobs  # noqa: E402
from rhosight.app.limits import MIB, Limits  # noqa: E402
from rhosight.app.pool import Pool  # noqa: E402
from rhosight.app.store import UPLOADS, Store  # noqa: E402
from rhosight.app.views import cut_slices  # noqa: E402
from rhosight.app.worker import Worker  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]

SECONDS = 30.0  # of a job, at most

SERVER = f"""
import asyncio
import uvicorn
from rhosight.app.limits import MIB, Limits
from rhosight.app.site import create_site

async def main():
    limits = Limits(file_bytes=4 * MIB, text_bytes=32 * MIB, grid_points=400_000, seconds={SECONDS})
    site = create_site(limits, 1)
    config = uvicorn.Config(site, port=0, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    print(server.servers[0].sockets[0].getsockname()[1], site.state.store.root, flush=True)
    await serving

if __name__ == "__main__":
    asyncio.run(main())
"""


@dataclass(frozen=True)
class Server:
    url: str
    folder: Path
    pid: int
    log: Path

    @property
    def workers(self) -> list[int]:
        """Process ids of its workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        lines = {int(c): Path(f"/proc/{c}/cmdline").read_bytes() for c in children}
        return [pid for pid, line in lines.items() if b"spawn_main" in line]

    def files(self) -> list[str]:
        """What it keeps on disk."""
        return [str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """A server of its own, as ``rhosight serve`` starts it, with small limits and one worker."""
    folder = tmp_path_factory.mktemp("server")
    script, log = folder / "server.py", folder / "log"
    script.write_text(SERVER)
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, script], stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder
        )
        port, root = process.stdout.readline().split()
        found = Server(f"http://127.0.0.1:{port}", Path(root), process.pid, log)
        yield found
        workers = found.workers
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert not Path(root).exists(), "the server left its folder behind"
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.fixture
def client(server: Server) -> Iterator:
    found = gradio_client.Client(server.url, verbose=False)
    yield found
    found.close()


@pytest.fixture(scope="module")
def chgcar(dataset: Dataset, tmp_path_factory) -> Path:
    """The bundled density of silicon in VASP's format."""
    path = tmp_path_factory.mktemp("silicon") / "CHGCAR"
    dataset["mp-149"].density.to_chgcar(path)
    return path


@pytest.fixture(scope="module")
def silicon(server: Server) -> Iterator[str]:
    """The key of the bundled silicon."""
    client = gradio_client.Client(server.url, verbose=False)
    yield predict(client, material="mp-149")["key"]
    client.close()


def predict(client, path: Path | None = None, material: str = "", kind: str = "total") -> dict:
    file = gradio_client.handle_file(str(path)) if path else None
    return client.predict(file, material, kind, api_name="/predict")


def problem(client, path: Path, kind: str = "total") -> str:
    """What the API says of a file that it refuses."""
    with pytest.raises(gradio_client.exceptions.AppError) as caught:
        predict(client, path, kind=kind)
    return str(caught.value)


def test_prediction_is_that_of_the_model(client, chgcar):
    """Through upload, worker and JSON the numbers are those of the library."""
    import rhosight

    found = predict(client, chgcar)
    density = rhosight.read_density(chgcar)
    expected = rhosight.load_model("best").predict_intervals([density]).iloc[0]
    for target, of in found["properties"].items():
        ends = expected[target], expected[f"{target}_low"], expected[f"{target}_high"]
        assert (of["value"], of["low"], of["high"]) == pytest.approx(ends, rel=1e-6)
    assert found["formula"] == "Si" and found["name"] == "CHGCAR"
    assert found["nearest"][0]["material"] == "mp-149" and found["trained"]
    labels = rhosight.load_dataset("mp-elastic").targets.loc[found["nearest"][1]["material"]]
    assert found["nearest"][1]["values"] == pytest.approx(labels.to_dict())


def test_the_page_of_the_api_has_real_names_and_examples(client):
    described = client.view_api(return_format="dict")["named_endpoints"]["/predict"]["parameters"]
    assert [p["parameter_name"] for p in described] == ["file", "material", "kind", "unit"]
    examples = [p["example_input"] for p in described]
    assert examples[0]["path"] == "CHGCAR" and examples[1:] == ["", "total", ""]


def test_slice_is_that_of_the_library(client, dataset):
    from rhosight.inputs.image import Channel, density_slice

    key = predict(client, material="mp-149")["key"]
    found = client.predict(key, 1, 1, 0, 0.25, 6.0, api_name="/slice")
    channel = Channel(kind="difference", window=6.0, hkl=(1, 1, 0), offset=0.25)
    expected = density_slice(dataset["mp-149"].density, channel, len(found["x"]), "spline")
    assert np.allclose(found["values"]["difference"], expected, atol=1e-5)
    block = client.predict(key, "total", api_name="/block")
    assert block["elements"].count("Si") == 18 and np.allclose(block["edges"], 5.444, atol=1e-3)
    assert client.predict(key, api_name="/forget") == "deleted"
    with pytest.raises(gradio_client.exceptions.AppError, match="no longer available"):
        client.predict(key, api_name="/slice")


def test_cif_gets_the_model_of_structures(client, dataset, tmp_path):
    path = tmp_path / "NaCl.cif"
    dataset["mp-22862"].structure.to(filename=str(path))
    found = predict(client, path)
    assert found["model"] == "no-dft" and found["kinds"] == ["total", "difference"]
    assert found["trained"] and "(predicted)" in found["code"]
    assert "no-dft predicted from the structure alone" in found["notes"][0]
    assert "predicted from the structure, not calculated" in found["notes"][1]
    values = client.predict(found["key"], api_name="/slice")["values"]
    total, difference, free = (
        np.array(values[kind]) for kind in ("total", "difference", "promolecule")
    )
    assert np.abs(total - difference - free).max() < 1e-4
    truth = cut_slices(dataset["mp-22862"].density, None, 0.0, 8.0).values["total"]
    assert np.abs(total - truth).mean() < 0.03 * truth.mean()
    assert np.abs(free - truth).mean() > 2 * np.abs(total - truth).mean()


def test_cif_whose_density_cannot_be_predicted_is_shown_without(client, tmp_path):
    path = tmp_path / "CsI.cif"
    Structure(Lattice.cubic(6.5), ["Cs", "I"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(filename=str(path))
    found = predict(client, path)
    assert found["kinds"] == []
    assert any("275 Å³ is not predicted here" in note for note in found["notes"])
    with pytest.raises(gradio_client.exceptions.AppError, match="contains no density"):
        client.predict(found["key"], api_name="/slice")


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_gets_a_sentence(client, server, tmp_path, case):
    name, content, expected = HOSTILE[case]
    path = tmp_path / name
    path.write_bytes(content)
    said = problem(client, path)
    assert expected in said and "\n" not in said and len(said) < 400
    assert str(server.folder) not in said and "Traceback" not in said and "<" not in said


@pytest.mark.parametrize("case", HOSTILE_ARGUMENTS)
def test_hostile_argument_gets_a_sentence(client, silicon, case):
    """It names the argument; no worker is asked."""
    endpoint, arguments, expected = HOSTILE_ARGUMENTS[case]
    if endpoint == "/predict":
        arguments = {"file": None, **arguments, "unit": arguments.get("unit", "")}
    elif endpoint != "/design":
        arguments = {"key": silicon, **arguments}
    said = call(client, endpoint, *arguments.values())
    assert expected in said and "\n" not in said and len(said) < 200


def call(client, endpoint: str, *arguments) -> str:
    """What an endpoint answers to arguments that :mod:`gradio_client` might not let through."""
    import httpx

    where = f"{client.src}gradio_api/call{endpoint}"
    asked = httpx.post(where, json={"data": list(arguments)}, timeout=60)
    assert asked.status_code == 200, asked.text
    answer = httpx.get(f"{where}/{asked.json()['event_id']}", timeout=60).text
    assert answer.startswith("event: error")
    return json.loads(answer.partition("data: ")[2])["error"]


def test_download_of_a_hostile_slice_gets_a_sentence(server, silicon):
    import httpx

    where = f"{server.url}/download/{silicon}/slice.csv"
    for query, expected in (
        ({"hkl": "1,1,99"}, "l: give a whole number"),
        ({"window": "1e6"}, "window: give a side"),
        ({"offset": "nan"}, "offset: give a number"),
    ):
        answer = httpx.get(where, params=query)
        assert answer.status_code == 400 and expected in answer.json()["detail"]


def test_too_large_a_file_is_refused_before_it_is_stored(client, server, tmp_path):
    import httpx

    content = b"1 " * (4 * MIB)
    answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("a", content)})
    assert answer.status_code == 413 and "at most 4 MiB" in answer.text
    assert answer.text.startswith("the file has")
    assert not [name for name in server.files() if name.endswith("/a")]


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "http://127.0.0.1:1/x", "../../../etc/passwd", "AAAAAAAAAAAAAAAAAAAAAA/CHGCAR"],
)
def test_no_file_but_an_upload_is_read(server, path):
    """A request that calls something else an upload: a file of the server, an address, a guess."""
    import httpx

    file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
    for place in ([file, "", "total"], [None, file, "total"], [None, "", [{"deep": file}]]):
        answer = httpx.post(f"{server.url}/gradio_api/call/predict", json={"data": place})
        assert answer.status_code == 400 and "no such upload" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/monitoring",
        "/gradio_api/vibe-code",
        "/download/AAAAAAAAAAAAAAAAAAAAAA/..%2f..%2fpasswd",
        "/static/../../../../etc/passwd",
    ],
)
def test_what_the_page_does_not_need_is_closed(server, path):
    import httpx

    answer = httpx.get(f"{server.url}{path}")
    assert answer.status_code in (403, 404) and "root:" not in answer.text


def test_nothing_is_left_of_a_visitor(server, chgcar):
    client = gradio_client.Client(server.url, verbose=False)
    with pytest.raises(gradio_client.exceptions.AppError):
        predict(client, Path(__file__))
    assert not [name for name in server.files() if name.endswith(Path(__file__).name)]
    key = predict(client, chgcar)["key"]
    assert [name for name in server.files() if name.startswith(key)] == [f"{key}/density.parquet"]
    client.predict(key, api_name="/forget")
    assert not [name for name in server.files() if name.startswith(key)]
    client.close()


def test_turns_are_fair_and_places_are_told(server):
    """Who has one job waits for one job of a visitor who has many."""
    many, other = (gradio_client.Client(server.url, verbose=False) for _ in range(2))
    predict(many, material="mp-149")  # the worker is warm
    (pid,) = server.workers
    os.kill(pid, signal.SIGSTOP)  # until all are in line
    order: list[str] = []

    def submit(client, name: str):
        job = client.submit(None, "mp-149", "total", api_name="/predict")
        job.add_done_callback(lambda _: order.append(name))
        return job

    jobs = [submit(many, "many") for _ in range(4)]
    # the client submits from threads of its own, in any order
    places = {f"waiting, place {place}" for place in (1, 2, 3)}
    waits_for(lambda: places <= {said(job) for job in jobs})
    jobs.append(submit(other, "other"))
    waits_for(lambda: said(jobs[-1]) == "waiting, place 2")
    os.kill(pid, signal.SIGCONT)
    for job in jobs:
        job.result(timeout=60)
    assert order.index("other") <= 2 and order.count("many") == 4
    many.close(), other.close()


def said(job) -> str:
    """What a job last told of itself."""
    progress = job.status().progress_data
    return progress[0].desc if progress else ""


def waits_for(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_cancelled_search_leaves_nothing():
    async def run() -> None:
        store = Store(Limits())
        jobs = Jobs(Pool(1, Limits()), store, ())  # its worker never starts
        found = jobs.design("one", SEARCH)
        assert (await anext(found)).place == 1 and len(list(store.root.iterdir())) == 1
        await found.aclose()
        assert not list(store.root.iterdir())
        store.close()

    asyncio.run(run())


def test_a_visitor_cannot_fill_the_line():
    async def run() -> str:
        pool = Pool(1, Limits(waiting_each=2))
        waiting = [pool.run("one", "analyse", None, {}) for _ in range(3)]
        await anext(waiting[0])
        await anext(waiting[1])
        with pytest.raises(RhosightError) as caught:
            await anext(waiting[2])
        for job in waiting:
            await job.aclose()
        await anext(again := pool.run("one", "analyse", None, {}))
        await again.aclose()
        return str(caught.value)

    assert "too many of your jobs" in asyncio.run(run())


@pytest.mark.slow
def test_largest_upload_is_taken(dataset, tmp_path):
    """What the limits allow together, as the server has them, fits in its memory and time."""
    limits, repeats = Limits(), (4, 5, 5)
    silicon = dataset["mp-149"].density
    structure = silicon.structure.copy()
    structure.make_supercell(repeats)
    tiled = np.tile(silicon.grid("total"), repeats)
    edge = round(limits.grid_points ** (1 / 3))
    total = tiled[np.ix_(*(np.arange(edge) * n // edge for n in tiled.shape))]
    total *= tiled.mean() / total.mean()
    assert total.size == limits.grid_points and len(structure) == limits.atoms
    (tmp_path / UPLOADS).mkdir()
    path = tmp_path / UPLOADS / "CHGCAR"
    ChargeDensity(grids={"total": total}, structure=structure).to_chgcar(path)

    async def run() -> dict:
        worker = Worker(limits)
        try:
            await worker.wait_until_ready()
            asked = {"name": "CHGCAR", "kind": "total"}
            return await worker.run("analyse", tmp_path, asked, lambda *_: None)
        finally:
            worker.kill()

    found = asyncio.run(run())
    assert found["model"] == "best" and found["grid"] == [edge] * 3


def test_serve_without_gradio_names_the_cure(monkeypatch):
    from typer.testing import CliRunner

    from rhosight.cli import app

    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(app, ["serve"])
    assert isinstance(result.exception, RhosightError)
    assert "pip install 'rhosight[app]'" in str(result.exception)


# in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def page(browser, server: Server) -> Iterator:
    """The page on a phone, in the dark; requests to anywhere else and errors fail the test."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    context.set_default_timeout(90_000)  # beside other tests a page is slow
    found = context.new_page()
    requests, errors = [], []
    found.on("request", lambda request: requests.append(request.url))
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.goto(server.url)
    found.wait_for_selector("#material input")
    yield found
    away = [u for u in requests if not u.startswith((server.url, "data:", "blob:"))]
    assert away == [] and errors == []
    context.close()


def test_drop_a_file_and_see(page, server, chgcar):
    page.set_input_files("#file input[type=file]", chgcar)
    page.wait_for_selector("#solid .js-plotly-plot")
    assert "Si" in page.inner_text(".rho-name") and "CHGCAR" in page.inner_text(".rho-name")
    assert page.locator(".rho-card").count() == 5
    assert "90 % interval" in page.inner_text(".rho-card >> nth=0")
    assert page.locator("#slice-total .js-plotly-plot").count() == 1
    assert page.locator("#nearest tbody tr").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("#slice-total").bounding_box()["width"] > 300  # not three in a row
    assert page.evaluate("document.body.classList.contains('dark')")
    assert not page.locator("footer .divider").is_visible()
    assert not page.locator(".modebar >> nth=0").is_visible()  # it would cover the figure
    # what those who see no figures are told
    words = page.locator("#slice-total .js-plotly-plot[role=img]").get_attribute("aria-label")
    assert words.startswith("Map of the total density on the plane (1 1 1), offset 0 spacings, 8 Å")
    words = page.locator("#solid .js-plotly-plot[role=img]").get_attribute("aria-label")
    assert "18 Si, and an isosurface of the total density" in words
    words = page.locator(".rho-bar >> nth=0").get_attribute("aria-label")
    shown = page.inner_text(".rho-card >> nth=0 >> .rho-interval").partition(": ")[2]
    assert words.startswith("Formation energy") and f"90 % interval {shown}" in words
    assert page.get_attribute("#nearest [role=region]", "tabindex") == "0"
    assert "trained on this material" in page.inner_text(".rho-notes")
    # the offset, by keyboard; then the slice as data
    page.locator("#offset input[type=range]").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    cut_is(page, offset=0.1)
    with page.expect_download() as saved:
        page.click("a[href*='slice.csv']")
    assert saved.value.suggested_filename == "Si-111.csv"
    lines = Path(saved.value.path()).read_text().splitlines()
    assert lines[0].startswith("x (Å),y (Å),total (e/Å³)") and len(lines) == 160**2 + 1
    with page.expect_download() as saved:
        page.click("text=Prediction as CSV")
    assert "bulk_modulus_vrh" in Path(saved.value.path()).read_text()


def test_several_files_at_once(page, server, chgcar, dataset, tmp_path):
    """One table; a bad file stops no other, and the page keeps the last crystal alone."""
    crystals = tmp_path / "HfC.cif"
    dataset["mp-1002124"].structure.to(filename=str(crystals))
    (tmp_path / "bad.cif").write_text("nothing\n")
    page.set_input_files("#file input[type=file]", [chgcar, tmp_path / "bad.cif", crystals])
    page.wait_for_selector("#solid .js-plotly-plot")
    rows = [row.inner_text() for row in page.locator("#several tbody tr").all()]
    assert [row.split()[0] for row in rows] == ["Si", "HfC"] and all("±" in row for row in rows)
    assert "bad.cif" in page.inner_text("#summary .rho-problem")
    assert page.inner_text(".rho-name").startswith("HfC")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    with page.expect_download() as saved:
        page.click("text=All predictions as CSV")
    table = pd.read_csv(saved.value.path())
    assert table.shape[0] == 10 and set(table["model"]) == {"best", "no-dft"}


def cut_is(page, **asked) -> None:
    """Wait for the plane of the slice that can be downloaded, then look that it stays."""

    def shown() -> dict[str, list[str]]:
        return parse_qs(urlsplit(page.get_attribute("a[href*='slice.csv']", "href")).query)

    deadline = time.monotonic() + 60
    while any(shown()[name] != [str(value)] for name, value in asked.items()):
        assert time.monotonic() < deadline, f"{shown()}, not {asked}"
        page.wait_for_timeout(100)
    page.wait_for_timeout(1500)
    assert all(shown()[name] == [str(value)] for name, value in asked.items())


def choose(page, material: str) -> None:
    """Choose a bundled material by keyboard."""
    page.focus("#material input")
    page.keyboard.type(material)
    page.wait_for_function("document.querySelectorAll('[role=option]').length === 1")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")


def indices(page) -> list[str]:
    """What the fields hold."""
    return [page.input_value(f"#index-{name} input") for name in "hkl"]


def test_choose_a_plane_by_keyboard(page):
    """In the example; what is typed stays, and the last of it is cut."""
    assert __version__ in page.inner_text(".rho-header")
    page.click("#example")
    page.wait_for_selector("#solid .js-plotly-plot")
    page.focus("#index-h input")
    for index in "210":  # Tab selects the next field's content
        page.keyboard.press("Control+a")
        page.keyboard.type(index)
        page.keyboard.press("Tab")
    cut_is(page, hkl="2,1,0")
    words = page.locator("#slice-total .js-plotly-plot[role=img]").get_attribute("aria-label")
    assert "(2 1 0)" in words
    assert indices(page) == ["2", "1", "0"] and "(2 1 0)" in page.inner_text(".rho-plane")
    page.focus("#offset input[type=number]")
    page.keyboard.press("Control+a")
    page.keyboard.type("0.5")
    page.keyboard.press("Enter")
    cut_is(page, hkl="2,1,0", offset=0.5)
    page.focus("#window input[type=range]")
    page.keyboard.press("ArrowLeft")
    cut_is(page, offset=0.5, window=7.5)
    page.focus("#densest")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.rho-plane').innerText.includes('(1 1 1)')")
    cut_is(page, hkl="1,1,1", offset=0, window=7.5)
    assert indices(page) == ["1", "1", "1"]
    page.focus("#index-h input")
    page.keyboard.press("Control+a")
    page.keyboard.type("13")
    page.wait_for_selector("text=h: give a whole number from -12 to 12, not 13")


def test_choose_a_material_by_keyboard(page):
    choose(page, "mp-16495")
    page.wait_for_selector("#slice-spin .js-plotly-plot")
    assert "AlCrFe2" in page.inner_text(".rho-name")
    assert "trained on this material" in page.inner_text(".rho-notes")
    page.click("#explain")
    with page.expect_download() as saved:
        page.click("text=Explanation as CSV")
    table = pd.read_csv(saved.value.path())
    of = table.pivot_table("value", "term", "property", sort=False)
    assert {"mean", "prediction", "composition"} <= set(of.index) and of.shape[1] == 5
    assert np.allclose(of.drop("prediction").sum(), of.loc["prediction"])
    assert saved.value.suggested_filename == "AlCrFe2-explanation.csv"
    assert not page.is_visible("#explain")
    page.focus("#material input")
    page.keyboard.press("Control+a")
    choose(page, "mp-149")
    page.wait_for_selector("text=Si mp-149")
    page.wait_for_selector("#solid .js-plotly-plot")
    assert page.inner_text("#explain") == "Explain"


def test_hostile_file_in_the_browser(page, server, tmp_path):
    """Its name and its comment stay text."""
    comment = "<script>document.title='taken'</script><img src=x onerror=document.title='taken'>"
    path = tmp_path / "<img src=x onerror=document.title='taken'>.vasp"
    path.write_text(HEADER.format(comment, "Si", "1") + " 9 9 9\n1 2 3\n")
    page.set_input_files("#file input[type=file]", path)
    page.wait_for_selector(".rho-problem")
    said = page.inner_text(".rho-problem")
    assert "truncated" in said and str(server.folder) not in said
    assert page.locator(".rho-problem img").count() == 0 and page.title() == "rhosight"


def test_refused_file_after_a_material(page, tmp_path):
    """Nothing stays that would be taken for what is known of the file."""
    choose(page, "mp-149")
    page.wait_for_selector("#solid .js-plotly-plot")
    large, unknown = tmp_path / "large", tmp_path / "a.pkl"
    large.write_bytes(b"1 " * (4 * MIB))
    page.set_input_files("#file input[type=file]", large)
    page.wait_for_selector("text=the file has 8 MiB; this page accepts at most 4 MiB")
    assert page.locator(".rho-name").count() == 1  # it was not even sent
    unknown.write_bytes(b"\x80\x04")
    page.reload()
    choose(page, "mp-149")
    page.wait_for_selector("#solid .js-plotly-plot")
    page.set_input_files("#file input[type=file]", unknown)
    page.wait_for_selector(".rho-problem")
    assert page.locator(".rho-name").count() == 0 and page.input_value("#material input") == ""
    for part in ("#density", "#crystal", "#why", "#nearest .rho-table"):
        assert not page.locator(part).is_visible()


def test_search_for_crystals(page):
    """Wishes in, proposals with pictures out."""
    page.get_by_role("tab", name="Search for crystals").click()
    fields = {"from-bulk": "200", "to-bulk": "300", "to-energy": "", "elements": "Ti, V, N, C"}
    for name, text in fields.items():
        page.locator(f"#{name}").locator("input, textarea").fill(text)
    for name, number in {"candidates": "20", "count": "1", "max-atoms": "2"}.items():
        page.fill(f"#{name} input[type=number]", number)
        page.keyboard.press("Tab")
    page.click("#search")
    page.wait_for_selector("#proposals .rho-card", timeout=150_000)
    assert "20 of" in page.inner_text("#proposals .rho-facts")
    card = page.inner_text("#proposals .rho-card")
    assert "Probability" in card and "Bulk modulus, VRH GPa" in card
    assert page.locator("#proposals img").get_attribute("src").startswith("data:image/png")
    with page.expect_download() as saved:
        page.click("#proposals a[download$='.cif']")
    assert "_cell_length_a" in Path(saved.value.path()).read_text()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_worker_that_dies(client, server):
    """Its job gets a sentence."""
    predict(client, material="mp-149")
    (pid,) = server.workers
    os.kill(pid, signal.SIGSTOP)
    job = client.submit(None, "mp-149", "total", api_name="/predict")
    waits_for(lambda: said(job) == "starting")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(gradio_client.exceptions.AppError, match="worker process died"):
        job.result(timeout=60)


def cancels_what_a_stopped_worker_does(page, pid: int) -> None:
    """The worker stands still, and goes on standing."""
    os.kill(pid, signal.SIGSTOP)
    choose(page, "mp-149")
    page.wait_for_selector("#cancel", state="visible")
    waits_for(lambda: "starting" in page.inner_text("#status"))
    page.click("#cancel")
    page.wait_for_function("document.querySelector('#status').innerText.includes('cancelled')")


def test_cancel_spares_a_worker_that_ends_soon(page, client, server):
    """The next visitor need not wait for another to start, and nothing of the job is kept."""
    predict(client, material="mp-149")
    (pid,) = server.workers
    kept = set(server.files())  # some may be of visitors who are just leaving
    cancels_what_a_stopped_worker_does(page, pid)
    assert page.input_value("#material input") == "" and page.locator(".rho-name").count() == 0
    os.kill(pid, signal.SIGCONT)
    waits_for(lambda: set(server.files()) <= kept)
    assert predict(client, material="mp-22862")["formula"] == "NaCl"
    assert server.workers == [pid]


def test_cancel(page, client, server):
    """There is another worker; a job of it that hangs is given up at once."""
    assert predict(client, material="mp-149")["formula"] == "Si"
    (pid,) = server.workers
    cancels_what_a_stopped_worker_does(page, pid)
    waits_for(lambda: pid not in server.workers)


@pytest.mark.slow
def test_a_worker_that_hangs(client, server, chgcar):
    """It is killed after its time, and the next visitor gets a prediction of another."""
    predict(client, material="mp-149")
    (pid,) = server.workers
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(gradio_client.exceptions.AppError, match=f"stopped after {SECONDS:g} s"):
        predict(client, chgcar)
    assert predict(client, chgcar)["formula"] == "Si"
    assert server.workers != [pid]


@pytest.mark.slow
def test_explanation_sums_to_the_prediction(client):
    key = predict(client, material="mp-149")["key"]
    found = client.predict(key, api_name="/explain")
    for target, value in found["prediction"].items():
        shares = [of[target] for of in found["modalities"].values()]
        assert found["base"][target] + sum(shares) == pytest.approx(value, abs=1e-6)


@pytest.mark.slow
def test_two_hundred_hostile_files_at_once(server, tmp_path):
    """No crash, a sentence for each, no file kept, no memory that grows with them."""
    paths = []
    for number in range(200):
        name, content, _ = list(HOSTILE.values())[number % len(HOSTILE)]
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        paths.append(folder / name)
    clients = [gradio_client.Client(server.url, verbose=False) for _ in range(40)]

    def send(number: int) -> list[str]:  # a client stands no second thread
        return [problem(clients[number], path) for path in paths[number :: len(clients)]]

    with ThreadPoolExecutor(len(clients)) as threads:
        answers = [answer for some in threads.map(send, range(len(clients))) for answer in some]
    assert len(answers) == len(paths)
    assert all(len(a) > 20 and str(server.folder) not in a for a in answers)
    for client in clients:
        client.close()
    waits_for(lambda: server.files() == [])  # earlier visitors leave, too
