"""A queen as a node meets her, in a thread: she takes registrations, heartbeats and farewells, and keeps them.

Owns the thread and its port, which stays the same when she is stopped and started again.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.integration.home import free_port

NEXT_MS = 300


@dataclass
class NodeQueen:
    """What a node has said: (method, path, body). `forgetful` has the next heartbeat answered with 404."""

    port: int = field(default_factory=free_port)
    token: str = "0123456789abcdef0123"
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    forgetful: bool = False
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Her address."""
        return f"http://127.0.0.1:{self.port}"

    def order(self) -> list[str]:
        """What she was asked: the last parts of the paths, with DELETE for a farewell."""
        return [path.rpartition("/")[2] if method == "POST" else method for method, path, _body in self.asked]

    def last(self, what: str) -> Any:
        """The newest body of that kind, if there is one."""
        return next((body for _method, path, body in reversed(self.asked) if path.endswith(what)), None)

    def start(self) -> None:
        """Answer from now on."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, method: str, path: str, authorization: str | None, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer to one request."""
        if authorization != f"Bearer {self.token}":
            return 401, {"code": "BAD_TOKEN", "message": "the token is not the one this daemon has"}
        self.asked.append((method, path, body))
        if method == "DELETE":
            return 204, {}
        if path.endswith("register"):
            return 200, {"success": True, "message": "welcome", "node_id": body["node_id"]}
        forgotten, self.forgetful = self.forgetful, False
        return (404, {}) if forgotten else (200, {"success": True, "next_heartbeat_ms": NEXT_MS})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        queen = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                data = self.rfile.read(int(self.headers.get("content-length", "0")))
                given = self.headers.get("authorization")
                status, answer = queen.answer(self.command, self.path, given, json.loads(data) if data else None)
                content = json.dumps(answer).encode() if status != 204 else b""
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        return Handler


@contextmanager
def node_queen() -> Iterator[NodeQueen]:
    """A queen that answers when the block begins."""
    queen = NodeQueen()
    queen.start()
    try:
        yield queen
    finally:
        queen.stop()
