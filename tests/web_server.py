"""A web server of this process for tests: answers by path, and writes down what it was asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Server:
    """`answers` by path: bytes, or a function that writes the whole answer."""

    url: str
    answers: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]]
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)  # method and path

    def redirect(self, path: str, target: str) -> str:
        """Have `path` lead to `target`, and return its URL."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(302)
            request.send_header("Location", target)
            request.send_header("Content-Length", "0")
            request.end_headers()

        self.answers[path] = answer
        return self.url + path


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that goes away early is what some tests are about."""


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Server]:
    server: Server

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.asked[self.command, self.path] += 1
            answer = server.answers.get(self.path)
            if callable(answer):
                answer(self)
                return
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(answer or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(answer or b"")

        do_HEAD = do_GET  # noqa: N815  (the name that the library asks for)

        def log_message(self, *what: Any) -> None:
            """Say nothing."""

    with _Quiet((host, 0), Handler) as running:
        server = Server(f"http://{host}:{running.server_port}", {})
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            running.shutdown()
            thread.join()
