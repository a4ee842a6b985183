"""Run the web server: uploads, downloads and Gradio's page."""

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
from .middleware import API, NOT_FOUND, RequestFilter
from .pool import Pool
from .reading import DATASET
from .store import UPLOADS, Store, make_safe_name

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 20.0
"""Time between two searches for unused files."""

STOP_SECONDS = 2
"""Time that open pages have to close when the server stops."""

_FORM_BYTES = 16 * 2**10
"""Maximum size of a form without its files."""

_MAX_FILES = 20
"""Maximum number of files that are dropped together."""

_WANTED = f"send 1 to {_MAX_FILES} files, as the field `files` of a form"


def create_site(limits: Limits, workers: int) -> FastAPI:
    """Create the application for an ASGI server.

    Run one process of it, because the queue of jobs is in that process.

    Parameters
    ----------
    limits
        Limits of an upload and of the server.
    workers
        Number of worker processes.
    """
    store = Store(limits)
    # must be set before Gradio is imported; it would use the network and its own folder otherwise
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(store.root)
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gradio

    from .appearance import HEAD, STYLE, make_theme
    from .page import build_page

    pool = Pool(workers, limits)
    materials = _list_materials()
    jobs = Jobs(pool, store, {m["material"] for m in materials})
    page = build_page(jobs, limits, materials)

    @contextlib.asynccontextmanager
    async def run_pool(site: FastAPI) -> AsyncIterator[None]:
        pool.start()
        sweeper = asyncio.create_task(_delete_unused_files(store, page.temp_file_sets))
        try:
            yield
        finally:
            sweeper.cancel()
            await pool.close()
            store.close()

    site = FastAPI(lifespan=run_pool, docs_url=None, redoc_url=None, openapi_url=None)
    site.state.pool, site.state.store = pool, store
    site.add_middleware(RequestFilter, store=store)
    _add_uploads(site, store, limits)
    _add_downloads(site, jobs)
    return gradio.mount_gradio_app(
        site,
        page,
        path="/",
        theme=make_theme(),
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


async def _delete_unused_files(store: Store, temp_file_sets: list[set[str]]) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        store.delete_unused()
        for names in temp_file_sets:  # Gradio remembers every file otherwise
            names.clear()


def _add_uploads(site: FastAPI, store: Store, limits: Limits) -> None:
    @site.post(f"{API}/upload", response_model=None)
    async def upload(request: Request) -> list[str] | Response:
        """Store an upload under a new key.

        This replaces Gradio's upload, which names files by their content: two visitors with the
        same file would share it, and one would delete the file of the other.
        """
        try:
            length = int(request.headers.get("content-length", ""))
        except ValueError:
            raise HTTPException(411, "send the size of the file (Content-Length)") from None
        if length > limits.file_bytes + _FORM_BYTES:
            # plain text, because Gradio's page shows the response as it is
            return PlainTextResponse(
                f"the file has {length / MIB:.0f} MiB; this page accepts at most "
                f"{limits.file_bytes / MIB:g} MiB, so compress it or write a coarser grid",
                413,
            )
        if store.measure_size() + length > limits.disk_bytes:
            raise HTTPException(503, "too many files are open; try again in a few minutes")
        try:
            form = await request.form(max_files=_MAX_FILES, max_fields=4)
        except HTTPException:
            raise HTTPException(400, _WANTED) from None
        files = form.getlist("files")
        if not files or not all(isinstance(file, UploadFile) for file in files):
            raise HTTPException(400, _WANTED)
        uploads = []
        for file in files:
            assert isinstance(file, UploadFile)
            key, name = store.create_folder(), make_safe_name(file.filename or "")
            with (store.root / key / UPLOADS / name).open("wb") as copy:
                await asyncio.to_thread(shutil.copyfileobj, file.file, copy)
            uploads.append(f"{key}/{name}")
        await form.close()
        return uploads

    @site.get(f"{API}/upload_progress")
    async def upload_progress() -> Response:
        """Answer the browser, which asks for progress that it can watch itself."""
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
            raise HTTPException(404, NOT_FOUND)
        h, k, l = map(int, hkl.split(","))  # noqa: E741, the Miller index
        result: dict[str, Any] = {}
        try:
            async for update in jobs.cut_slices(key, key, (h, k, l), offset, window, form):
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
            headers={"Content-Disposition": f'attachment; filename="{result["name"]}.{form}"'},
        )


def _list_materials() -> list[dict[str, str]]:
    """Return id and formula of the bundled materials, sorted by formula."""
    table = load_dataset(DATASET).table
    pairs = sorted(zip(table["formula"], table.index, strict=True))
    return [{"material": material, "formula": formula} for formula, material in pairs]


def serve(host: str, port: int, workers: int, limits: Limits) -> None:
    """Serve the page until interrupted; print its address once the server listens.

    Raises
    ------
    RhosightError
        If the server cannot listen on the port.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            print(f"rhosight is running at http://{host}:{port} (Ctrl-C stops it)", flush=True)

        async def shutdown(self, sockets: Any = None) -> None:
            # open pages are disconnected; a traceback for each would help nobody
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        create_site(limits, workers),
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,  # open pages listen forever
    )
    try:
        Server(config).run()
    except SystemExit as error:  # uvicorn exits if it cannot listen
        raise RhosightError(
            f"cannot listen on {host}:{port}; choose another port with --port"
        ) from error
