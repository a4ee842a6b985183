"""Provide a small HTTP server that records requests and fails on demand."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """Request of a client, with header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    target: str
    """Path and query as received."""

    time: float
    """Time of arrival, in seconds of a monotonic clock."""

    body: bytes = b""


@dataclass(frozen=True)
class Reply:
    """Reply to a client."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """Content-Length if it differs from the body; a larger value simulates a truncated body."""


DROP = Reply(status=0)
"""Close the connection without a reply."""


@dataclass(frozen=True)
class Cut:
    """Fault that sends only half of the true reply."""


def as_json(content: Any, status: int = 200, **headers: str) -> Reply:
    """Return a reply with JSON content."""
    return Reply(
        status, json.dumps(content).encode(), {"Content-Type": "application/json"} | headers
    )


class FaultyServer(ABC):
    """Server that listens on a free local port inside its context."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._faults: list[tuple[str, str, list[Reply | Cut]]] = []

    @abstractmethod
    def answer(self, request: Request) -> Reply:
        """Return the reply for a request without a fault."""

    def fail(self, path: str, *faults: Reply | Cut, method: str = "") -> None:
        """Give each of the next matching requests one of these faults.

        A request matches if its path contains ``path`` and, if ``method`` is given, has that
        method.
        """
        self._faults.append((path, method, list(faults)))

    def seen(self, path: str, method: str = "GET") -> list[Request]:
        """Return the requests whose path contains ``path``."""
        return [r for r in self.requests if path in r.path and r.method == method]

    def forget(self) -> None:
        """Drop all requests and faults."""
        self.requests.clear()
        self._faults.clear()

    def __enter__(self) -> FaultyServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server._serve(self)

            do_HEAD = do_PUT = do_POST = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/"
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        query = dict(parse_qsl(address.query))
        request = Request(
            handler.command,
            address.path,
            query,
            headers,
            handler.path,
            time.monotonic(),
            _read_body(handler),
        )
        self.requests.append(request)
        fault = next(
            (
                faults.pop(0)
                for path, method, faults in self._faults
                if path in request.path and method in ("", request.method) and faults
            ),
            None,
        )
        if fault is DROP:
            handler.close_connection = True
            return
        reply = fault if isinstance(fault, Reply) else self.answer(request)
        body = reply.body[: len(reply.body) // 2] if isinstance(fault, Cut) else reply.body
        handler.send_response(reply.status)
        length = len(reply.body) if reply.length is None else reply.length
        for name, value in {"Content-Length": str(length), **reply.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if request.method != "HEAD":
            handler.wfile.write(body)


def _read_body(handler: BaseHTTPRequestHandler) -> bytes:
    """Read the body of a request, sent in one piece or in chunks."""
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


class Silent(FaultyServer):
    """Server that answers every request with status 502, for all other addresses."""

    def answer(self, request: Request) -> Reply:
        return Reply(502)
