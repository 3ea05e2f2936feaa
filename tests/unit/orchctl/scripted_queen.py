"""A queen that answers from a script: the contract's answers, and what a broken or foreign server would say."""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

TASK_ID = UUID("6f1c2a52-3b57-4bd4-9f5e-1f0e3a5d7c11")
EVENTS = f"/v2/tasks/{TASK_ID}/events"
CANCEL = f"/v2/tasks/{TASK_ID}/cancel"
ACCEPTED: dict[str, object] = {
    "task_id": str(TASK_ID),
    "job_id": "0d9d2b8e-2f0c-4c28-9d6b-1c5f2f1a7a55",
    "queue_position": 0,
    "predicted_start_ms": 0,
    "backoff_ms": 0,
    "streams": {"sse": EVENTS, "sse_verbose": f"{EVENTS}?verbose=true"},
    "preparation": {"steps": []},
    "a_field_of_a_newer_queen": True,
}
END = {"tokens_in": 3, "tokens_out": 2, "decode_time_ms": 5, "decode_ms": 5}


@dataclass(frozen=True)
class Request:
    """What orchctl asked."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Queen:
    """Answers by `"METHOD /path"`, the last one again and again; `asked` is what came."""

    answers: dict[str, list[bytes]]
    url: str = ""
    asked: list[Request] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)
    release: threading.Event = field(default_factory=threading.Event)

    def of(self, line: str) -> list[Request]:
        """The requests for `line`."""
        return [request for request in self.asked if request.line == line]

    def wait_for(self, line: str) -> None:
        """Return when `line` has been asked; AssertionError after a while."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.of(line), 20), f"{line} was not asked: {self.asked}"

    def answer(self, request: Request) -> bytes:
        """The answer that is next for `request`."""
        with self.arrived:
            self.asked.append(request)
            self.arrived.notify_all()
        given = self.answers.get(request.line, [error(404, "NOT_FOUND", "no such path")])
        return given.pop(0) if len(given) > 1 else given[0]


def reply(status: int, body: object = None, headers: str = "") -> bytes:
    """An answer with `body` as JSON."""
    data = b"" if body is None else json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode() + data


def error(status: int, code: str, message: str, **more: object) -> bytes:
    """An error as the contract has it."""
    return reply(status, {"code": code, "message": message, "retriable": False, "correlation_id": "c", **more})


def stream(*events: tuple[str, object], first_id: int = 1) -> bytes:
    """An event stream that closes behind `events`."""
    text = "".join(
        f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
        for number, (name, data) in enumerate(events, first_id)
    )
    return b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n" + text.encode()


def tokens(*texts: str) -> list[tuple[str, object]]:
    """Token events."""
    return [("token", {"t": text, "i": index}) for index, text in enumerate(texts)]


HOLD = b"hold the connection open"


def submitting(*streams: bytes, **more: bytes) -> dict[str, list[bytes]]:
    """The script of one task."""
    return {
        "POST /v2/tasks": [more.get("accepted", reply(202, ACCEPTED))],
        f"GET {EVENTS}": list(streams),
        f"POST {CANCEL}": [reply(204)],
    }


class _Handler(socketserver.StreamRequestHandler):
    queen: Queen

    def handle(self) -> None:
        line = self.rfile.readline().decode().rpartition(" ")[0]
        headers = {}
        while (header := self.rfile.readline().decode().strip()) and ":" in header:
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", "0")))
        answer = self.queen.answer(Request(line, headers, body))
        try:
            self.wfile.write(answer.removesuffix(HOLD))
            if answer.endswith(HOLD):
                self.queen.release.wait(20)
        except OSError:
            return  # orchctl has left


class _Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET
    allow_reuse_address = True
    daemon_threads = False


@contextmanager
def queen(answers: dict[str, list[bytes]]) -> Iterator[Queen]:
    """A running queen with this script."""
    made = Queen(answers)
    handler: Callable[..., _Handler] = type("Handler", (_Handler,), {"queen": made})
    with _Server(("127.0.0.1", 0), handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            made.release.set()
            server.shutdown()
            thread.join()
