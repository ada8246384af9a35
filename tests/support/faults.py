"""A proxy of an HTTP server that injects faults: errors, delays, bodies that end too soon."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[[str, str], str | None]  # from (method, path) to a fault, or a status ("503")
CUT, TRUNCATED, SHORT, LATE, LOST = "cut", "truncated", "short", "late", "lost"
DELAY = 0.3  # seconds
NOT_PASSED_ON = ("transfer-encoding", "content-length", "connection")


class Proxy(ThreadingHTTPServer):
    """A proxy that passes requests on to a port of this machine, unless a fault is injected."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = port
        self.fault: Fault = lambda method, path: None
        self.seen: Counter[str] = Counter()  # faults, and requests that went well

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors, because clients may hang up."""


class Handler(BaseHTTPRequestHandler):
    """The handler of one connection to the proxy."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = self.server.fault(self.command, self.path)
        self.server.seen[fault or "well"] += 1
        if fault == CUT:
            self.close_connection = True
        elif fault is not None and fault.isdigit():
            self._answer(int(fault), [], b"<Error></Error>")
        else:
            time.sleep(DELAY if fault == LATE else 0)
            status, headers, body = self._ask(sent)
            if fault == LOST:  # the server has done it, but the answer is lost
                self._answer(500, [], b"")
            else:
                half = len(body) // 2
                self._answer(status, headers, body[:half] if fault == SHORT else body, fault == TRUNCATED)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def _ask(self, sent: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)) as behind:
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                behind.putheader(name, value)
            behind.endheaders(sent)
            answer = behind.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, truncated: bool = False
    ) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if truncated else body)
        self.close_connection = self.close_connection or truncated


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    """Run a proxy of a port in a thread, and close it at the end."""
    server = Proxy(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
