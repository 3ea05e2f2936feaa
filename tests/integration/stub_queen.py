"""A stub of queen-rbee's node API that records registrations, heartbeats and deregistrations.

It serves in a thread that it owns. Its port stays the same when it is stopped and started again.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.integration.home import free_port

HEARTBEAT_MS = 300


@dataclass
class StubQueen:
    """The stub. `requests` has each authorized request as (method, path, body).

    After `forget_nodes` is set, the next heartbeat gets 404, as from a queen that lost its state.
    """

    port: int = field(default_factory=free_port)
    token: str = "0123456789abcdef0123"
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    forget_nodes: bool = False
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kinds(self) -> list[str]:
        """Return the kind of each request: `register`, `heartbeat`, or `DELETE` for a deregistration."""
        return [path.rpartition("/")[2] if method == "POST" else method for method, path, _body in self.requests]

    def last_body(self, kind: str) -> Any:
        """Return the body of the newest request of that kind, or None."""
        return next((body for _method, path, body in reversed(self.requests) if path.endswith(kind)), None)

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def respond(self, method: str, path: str, authorization: str | None, body: Any) -> tuple[int, dict[str, Any]]:
        if authorization != f"Bearer {self.token}":
            return 401, {"code": "BAD_TOKEN", "message": "the token is not the one this daemon has"}
        self.requests.append((method, path, body))
        if method == "DELETE":
            return 204, {}
        if path.endswith("register"):
            return 200, {"success": True, "message": "welcome", "node_id": body["node_id"]}
        forget, self.forget_nodes = self.forget_nodes, False
        return (404, {}) if forget else (200, {"success": True, "next_heartbeat_ms": HEARTBEAT_MS})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        queen = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                data = self.rfile.read(int(self.headers.get("content-length", "0")))
                token = self.headers.get("authorization")
                status, answer = queen.respond(self.command, self.path, token, json.loads(data) if data else None)
                content = json.dumps(answer).encode() if status != 204 else b""
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_arguments: object) -> None: ...

        return Handler


@contextmanager
def stub_queen() -> Iterator[StubQueen]:
    queen = StubQueen()
    queen.start()
    try:
        yield queen
    finally:
        queen.stop()
