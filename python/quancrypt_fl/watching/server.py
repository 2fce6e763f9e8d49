"""Serves the page that refreshes: on loopback unless asked, to reading requests only.

``/`` is the page, ``/status.json`` what it shows, ``/report`` the HTML report as of now.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import socket
import socketserver
import threading
import time
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from quancrypt_fl.report.page import render_page
from quancrypt_fl.report.reading import ReportError, collect
from quancrypt_fl.report.values import shorten
from quancrypt_fl.watching.page import live_page
from quancrypt_fl.watching.source import StatusSource, WatchError

__all__ = ["WatchServer"]

_HTML, _JSON, _TEXT = "text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"
_SLOWEST = 20.0  # seconds that a connection may stay silent
_REPORT_POLICY = "frame-ancestors 'none'"  # the report's own policy stands in its head


class WatchServer:
    """A context manager that serves in threads of its own.

    Parameters
    ----------
    source
        What to show.
    host, port
        Where to listen; port 0 takes a free one, see the attribute. The page has no password:
        an address that others reach shows it to them.

    Raises
    ------
    WatchError
        If it cannot listen there.
    """

    def __init__(self, source: StatusSource, host: str = "127.0.0.1", port: int = 0) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._page, self._policy = live_page()
        watcher = self

        class Handler(_Handler):
            watch = watcher

        try:
            self._server = _Server((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise WatchError(f"cannot listen at {host}:{port}: {reason}") from error
        self.host = host
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="quancrypt-watch", daemon=True
        )

    @property
    def url(self) -> str:
        """Where the page is, as seen from this machine."""
        shown = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}/"

    @property
    def open_to_others(self) -> bool:
        """Whether it listens at more than the loopback address."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Until the server ends, or Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    # --- answers: content type, body, further headers ---

    def page(self) -> tuple[str, bytes, dict[str, str]]:
        """The page."""
        return _HTML, self._page.encode(), {"Content-Security-Policy": self._policy}

    def status(self) -> tuple[str, bytes, dict[str, str]]:
        """What it shows. The time is in a header, so that an unchanged body is recognized."""
        with self._lock:
            status = self._source.read()
            problem = self._source.problem
        shown = None if status is None else {**asdict(status), "heading": status.heading()}
        has_report = status is not None and bool(status.records)
        body = json.dumps({"status": shown, "report": has_report, "problem": problem}).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        return _JSON, body, {"ETag": tag, "X-Now": f"{time.time():.3f}"}

    def report(self) -> tuple[str, bytes, dict[str, str]]:
        """The report of everything in the folder."""
        folder = self._source.folder
        title = f"Runs in {shorten(folder.resolve().name) or 'this folder'}"
        page = render_page(collect(folder), title).encode("utf-8", "replace")
        return _HTML, page, {"Content-Security-Policy": _REPORT_POLICY}

    def allows(self, host: str | None) -> bool:
        """Whether a request's Host header is one of ours.

        Otherwise a page from elsewhere could have its own name resolve to 127.0.0.1 and read the
        answers. An address that was opened to others has names that only they know.
        """
        if self.open_to_others:
            return True
        name = (host or "").rpartition(":")[0] if (host or "").count(":") else host
        return (name or "").strip("[]") in {"127.0.0.1", "localhost", "::1", self.host}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without the look-up of the machine's name, which may ask a name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in mid-answer is no event."""


class _Handler(BaseHTTPRequestHandler):
    watch: WatchServer
    protocol_version = "HTTP/1.1"
    server_version = "quancrypt"
    sys_version = ""
    timeout = _SLOWEST

    def do_GET(self) -> None:
        if not self.watch.allows(self.headers.get("Host")):
            self._send(HTTPStatus.FORBIDDEN, _TEXT, b"Unknown host name.\n")
            return
        answers = {
            "/": self.watch.page,
            "/status.json": self.watch.status,
            "/report": self.watch.report,
        }
        answer = answers.get(self.path.partition("?")[0])
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, _TEXT, b"There is /, /status.json and /report.\n")
            return
        try:
            kind, body, headers = answer()
        except ReportError as error:
            body = f"No report yet: {shorten(str(error), 500)}\n".encode()
            self._send(HTTPStatus.NOT_FOUND, _TEXT, body)
            return
        if "ETag" in headers and self.headers.get("If-None-Match") == headers["ETag"]:
            self._send(HTTPStatus.NOT_MODIFIED, kind, b"", headers)
            return
        self._send(HTTPStatus.OK, kind, body, headers)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _send(
        self, status: HTTPStatus, kind: str, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Requests are not worth a line each."""
