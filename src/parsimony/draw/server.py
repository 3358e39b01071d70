"""The page's server: on 127.0.0.1 alone, and for its own page alone, whatever other sites the browser has open."""

import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from parsimony.draw.answer import SIDE, Artist

HERE = Path(__file__).parent
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """Serves `artist` at `address`; port 0 takes a free one. Raises OSError where the port is taken."""

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"  # elsewhere it waits out the last connections of a server that ended

    def __init__(self, artist: Artist, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.artist = artist
        self.network = artist.network()
        self.one_at_a_time = Lock()
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        if self.server_port == 80:
            self.hosts |= {"127.0.0.1", "localhost"}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a page that was closed while it was answered
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds without a word, then the connection is closed

    def do_GET(self) -> None:
        if not self._is_ours():
            return
        if self.path == "/network":
            self._send(HTTPStatus.OK, "application/json", json.dumps(self.server.network).encode())
        elif self.path in FILES:
            name, kind = FILES[self.path]
            self._send(HTTPStatus.OK, f"{kind}; charset=utf-8", (HERE / name).read_bytes())
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        if self.path != "/answer":
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")
        elif self.headers.get("Content-Length") != str(SIDE * SIDE):
            self._refuse(HTTPStatus.BAD_REQUEST, f"A drawing is {SIDE * SIDE} bytes.")
        elif len(drawing := self.rfile.read(SIDE * SIDE)) == SIDE * SIDE:
            with self.server.one_at_a_time:
                answer = self.server.artist.answer(drawing)
            self._send(HTTPStatus.OK, "application/json", json.dumps(answer).encode())

    def _is_ours(self) -> bool:
        """Refuses what another site sends, and what reached this machine by a name that another site chose."""
        origin = self.headers.get("Origin")
        fetched_by = self.headers.get("Sec-Fetch-Site", "none")
        ours = self.headers.get("Host") in self.server.hosts
        ours &= origin is None or origin.removeprefix("http://") in self.server.hosts
        ours &= fetched_by in ("none", "same-origin") or (self.command == "GET" and self.path == "/")  # a link to it
        if not ours:
            self._refuse(HTTPStatus.FORBIDDEN, "Only the page itself may ask.")
        return ours

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True  # what it sent with the request is still unread
        self._send(status, "text/plain; charset=utf-8", why.encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def version_string(self) -> str:
        return "parsimony"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Not a line a stroke."""
