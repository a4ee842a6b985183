"""What stands between the network and Gradio: only the routes that the page needs, no foreign
files, uploads without a path of the server, and headers that keep the browser at home.
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import RhosightError
from .limits import MIB
from .store import Store

API = "/gradio_api"

MOST_BODY = MIB
"""Bytes of a request that is no upload."""

_READS = re.compile(
    rf"/|/(config|theme\.css|robots\.txt|manifest\.json|favicon\.ico|pwa_icon)|/(assets|static|svelte)/.*"
    rf"|/download/.*|{API}/(info|openapi\.json|app_id|startup-events|upload_progress|theme\.css)"
    rf"|{API}/(queue/data|heartbeat/.*|call/.*|queue/status)"
)
_WRITES = re.compile(rf"{API}/(upload|queue/join|cancel|reset|call/.*)")

HEADERS = {
    # what is not listed is not asked for, whatever a page or a file name holds
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Door:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        path, reads = scope["path"].rstrip("/") or "/", scope["method"] in ("GET", "HEAD")
        allowed = (_READS if reads else _WRITES).fullmatch(path)
        if not allowed or scope["method"] not in ("GET", "HEAD", "POST"):
            refusal = JSONResponse({"detail": "there is nothing here"}, 404)
            await refusal(scope, receive, send_with_headers)
            return
        if not reads and path != f"{API}/upload":
            try:
                receive = await self._checked(scope, receive)
            except RhosightError as error:
                await JSONResponse({"detail": str(error)}, 400)(scope, receive, send_with_headers)
                return
        await self._app(scope, receive, send_with_headers)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """The request with its files where they are on disk; Gradio would otherwise fetch any
        address and read any file that a request calls an upload.
        """
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MOST_BODY:
                raise RhosightError("a request of more than 1 MiB; files go to the upload")
        try:
            content = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise RhosightError("the request is not JSON") from error
        self._resolve(content)
        body = json.dumps(content).encode()
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        scope["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay

    def _resolve(self, value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                self._resolve(item)
        elif isinstance(value, dict):
            if "path" in value or "url" in value:
                path = self._store.upload(str(value.get("path")))
                value.clear()
                value.update(path=str(path), orig_name=path.name)
                value["meta"] = {"_type": "gradio.FileData"}
                return
            for item in value.values():
                self._resolve(item)
