"""Restrict what reaches Gradio, and what the browser may load.

Only the routes that the page needs are open. A request cannot name a file of the server or an
address as its upload. Response headers keep the browser from loading anything from elsewhere.
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

NOT_FOUND = "not found"

MAX_BODY = MIB
"""Maximum size of a request that is not an upload, bytes."""

_READS = re.compile(
    rf"/|/(config|theme\.css|robots\.txt|manifest\.json|favicon\.ico|pwa_icon)|/(assets|static|svelte)/.*"
    rf"|/download/.*|{API}/(info|openapi\.json|app_id|startup-events|upload_progress|theme\.css)"
    rf"|{API}/(queue/data|heartbeat/.*|call/.*|queue/status)"
)
_WRITES = re.compile(rf"{API}/(upload|queue/join|cancel|reset|call/.*)")

HEADERS = {
    # nothing else is loaded, whatever a page or a file name contains
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class RequestFilter:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        path, is_read = scope["path"].rstrip("/") or "/", scope["method"] in ("GET", "HEAD")
        is_open = (_READS if is_read else _WRITES).fullmatch(path)
        if not is_open or scope["method"] not in ("GET", "HEAD", "POST"):
            response = JSONResponse({"detail": NOT_FOUND}, 404)
            await response(scope, receive, send_with_headers)
            return
        if not is_read and path != f"{API}/upload":
            try:
                receive = await self._check_body(scope, receive)
            except RhosightError as error:
                await JSONResponse({"detail": str(error)}, 400)(scope, receive, send_with_headers)
                return
        await self._app(scope, receive, send_with_headers)

    async def _check_body(self, scope: Scope, receive: Receive) -> Receive:
        """Return the request with the paths of its uploads.

        Without this, Gradio would fetch any address and read any file that a request names as an
        upload.
        """
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY:
                raise RhosightError(
                    f"the request is larger than {MAX_BODY / MIB:g} MiB; send files as uploads"
                )
        try:
            content = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise RhosightError("the request is not JSON") from error
        self._resolve_uploads(content)
        body = json.dumps(content).encode()
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        scope["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
        is_sent = False

        async def replay() -> Message:
            nonlocal is_sent
            if is_sent:
                return await receive()
            is_sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay

    def _resolve_uploads(self, value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                self._resolve_uploads(item)
        elif isinstance(value, dict):
            if "path" in value or "url" in value:
                path = self._store.find_upload(str(value.get("path")))
                value.clear()
                value.update(path=str(path), orig_name=path.name)
                value["meta"] = {"_type": "gradio.FileData"}
                return
            for item in value.values():
                self._resolve_uploads(item)
