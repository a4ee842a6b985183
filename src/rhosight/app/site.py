"""The web server: uploads, downloads and Gradio's page, from start to end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from ..dataset.packing import load_dataset
from ..errors import RhosightError
from .jobs import Jobs
from .limits import MIB, Limits
from .middleware import API, Door
from .pool import Pool
from .reading import DATASET
from .store import Store, safe_name

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 20.0
STOP_SECONDS = 2
_FORM_BYTES = 16 * 2**10
"""What a form adds to its file."""


def create_site(limits: Limits, workers: int) -> FastAPI:
    """The whole application, for any ASGI server; one process of it, since jobs queue in it.

    Parameters
    ----------
    limits
        What uploads may take.
    workers
        Processes that compute.
    """
    store = Store(limits)
    # before Gradio is imported: it asks the network and writes files as it likes otherwise
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(store.root)
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gradio

    from .page import HEAD, STYLE, build_page, theme

    pool = Pool(workers, limits)
    materials = _materials()
    jobs = Jobs(pool, store, {m["material"] for m in materials})

    page = build_page(jobs, limits, materials)

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            store.sweep()
            for names in page.temp_file_sets:  # of every file that Gradio ever saw
                names.clear()

    @contextlib.asynccontextmanager
    async def lifespan(site: FastAPI) -> AsyncIterator[None]:
        pool.start()
        sweeper = asyncio.create_task(sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            await pool.close()
            store.close()

    site = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    site.state.pool, site.state.store = pool, store
    site.add_middleware(Door, store=store)
    _add_uploads(site, store, limits)
    _add_downloads(site, jobs)
    return gradio.mount_gradio_app(
        site,
        page,
        path="/",
        theme=theme(),
        css_paths=STYLE,
        head=HEAD,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=["api"],
    )


def _add_uploads(site: FastAPI, store: Store, limits: Limits) -> None:
    @site.post(f"{API}/upload", response_model=None)
    async def upload(request: Request) -> list[str] | Response:
        """In place of Gradio's own, which names files by their content: two visitors with one file
        would share it, and one of them would delete it under the other's hands.
        """
        try:
            length = int(request.headers.get("content-length", ""))
        except ValueError:
            raise HTTPException(411, "say how long the file is (Content-Length)") from None
        if length > limits.file_bytes + _FORM_BYTES:
            # plain text, since Gradio's page shows the answer as it is
            return PlainTextResponse(
                f"the file has {length / MIB:.0f} MiB; this page takes "
                f"{limits.file_bytes / MIB:g} MiB at most: compress it, or write a coarser grid",
                413,
            )
        if store.size() + length > limits.disk_bytes:
            raise HTTPException(503, "too many files are open; try again in some minutes")
        try:
            form = await request.form(max_files=1, max_fields=4)
        except HTTPException:
            raise HTTPException(400, "send one file, as the field `files` of a form") from None
        file = form.get("files")
        if not isinstance(file, UploadFile):
            raise HTTPException(400, "send one file, as the field `files` of a form")
        key, name = store.new(), safe_name(file.filename or "")
        with (store.root / key / name).open("wb") as copy:
            await asyncio.to_thread(shutil.copyfileobj, file.file, copy)
        await form.close()
        return [f"{key}/{name}"]

    @site.get(f"{API}/upload_progress")
    async def upload_progress() -> Response:
        """The browser asks while it sends; it need not be told what it knows."""
        return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")


def _add_downloads(site: FastAPI, jobs: Jobs) -> None:
    @site.get("/download/{key}/{name}")
    async def download(
        key: str,
        name: str,
        hkl: Annotated[str, Query(pattern=r"^-?\d{1,3},-?\d{1,3},-?\d{1,3}$")] = "0,0,0",
        offset: float = 0.0,
        window: float = 8.0,
    ) -> Response:
        form = {"slice.csv": "csv", "slice.png": "png"}.get(name)
        if form is None:
            raise HTTPException(404, "there is nothing here")
        h, k, l = map(int, hkl.split(","))  # noqa: E741, the Miller index
        result: dict[str, Any] = {}
        try:
            async for update in jobs.slices(key, key, (h, k, l), offset, window, form):
                result = update.result or {}
        except RhosightError as error:
            return JSONResponse({"detail": str(error)}, 400)
        if form == "csv":
            content, kind = result["csv"].encode(), "text/csv; charset=utf-8"
        else:
            content, kind = base64.b64decode(result["png"]), "image/png"
        return Response(
            content,
            media_type=kind,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


def _materials() -> list[dict[str, str]]:
    """Id and formula of the bundled materials, by formula."""
    table = load_dataset(DATASET).table
    pairs = sorted(zip(table["formula"], table.index, strict=True))
    return [{"material": material, "formula": formula} for formula, material in pairs]


def serve(host: str, port: int, workers: int, limits: Limits) -> None:
    """Serve the page until interrupted; say where once it listens.

    Raises
    ------
    RhosightError
        If the port is taken.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            print(f"rhosight at http://{host}:{port} (stop with Ctrl-C)", flush=True)

        async def shutdown(self, sockets: Any = None) -> None:
            # open pages are cut off, and a traceback for each would tell nobody anything
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        create_site(limits, workers),
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,  # open pages listen for ever
    )
    try:
        Server(config).run()
    except SystemExit as error:  # how uvicorn says that it cannot listen
        raise RhosightError(f"{host}:{port} cannot be used; choose another with --port") from error
