"""An HTTP server that replays scripted responses: those of the queen, and of broken or foreign servers."""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
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
    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedQueen:
    """Responses by `"METHOD /path"`, or else those of ANYTHING; the last response of a list is repeated.

    `requests` has the requests received, `closed` those whose held connection the client has closed.
    """

    answers: dict[str, list[bytes]]
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)
    closed: list[str] = field(default_factory=list)
    held: set[socket.socket] = field(default_factory=set)

    def requests_for(self, line: str) -> list[Request]:
        return [request for request in self.requests if request.line == line]

    def bodies(self, line: str) -> list[Any]:
        """Return the parsed JSON bodies of the requests for `line`."""
        return [json.loads(request.body) for request in self.requests_for(line)]

    def wait_for(self, line: str, times: int = 1) -> None:
        """Wait for the given number of requests for `line`; AssertionError after 20 s."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.requests_for(line)) >= times, 20), (
                f"no request {line}: {self.requests}"
            )

    def wait_until_closed(self, line: str) -> None:
        """Wait until the client of a held response to `line` has closed its connection; AssertionError after 20 s."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: line in self.closed, 20), f"no client has closed {line}"

    def hold(self, line: str, connection: socket.socket) -> None:
        """Keep `connection` open until its client or release() closes it."""
        connection.settimeout(20)
        with self.arrived:
            self.held.add(connection)
            self.arrived.notify_all()
        with suppress(ConnectionResetError):  # a client that ends before it has read everything
            connection.recv(1)
        with self.arrived:
            if connection in self.held:
                self.held.remove(connection)
                self.closed.append(line)
            self.arrived.notify_all()

    def release(self) -> None:
        """Close the held connections; AssertionError if there is none within 20 s."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.held, 20), "no connection is held open"
            for connection in self.held:
                connection.shutdown(socket.SHUT_RDWR)
            self.held.clear()

    def answer(self, request: Request) -> bytes:
        with self.arrived:
            self.requests.append(request)
            self.arrived.notify_all()
        unknown = [error(404, "NOT_FOUND", "no such path")]
        responses = self.answers.get(request.line) or self.answers.get(ANYTHING, unknown)
        return responses.pop(0) if len(responses) > 1 else responses[0]


def reply(status: int, body: object = None, headers: str = "") -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode() + data


def error(status: int, code: str, message: str, **more: object) -> bytes:
    return reply(status, {"code": code, "message": message, "retriable": False, "correlation_id": "c", **more})


def stream(*events: tuple[str, object], first_id: int = 1) -> bytes:
    """Return an event stream that is closed after `events`."""
    text = "".join(
        f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
        for number, (name, data) in enumerate(events, first_id)
    )
    return b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n" + text.encode()


def tokens(*texts: str) -> list[tuple[str, object]]:
    return [("token", {"t": text, "i": index}) for index, text in enumerate(texts)]


HOLD = b"hold the connection open until the client closes it"
ANYTHING = "*"


MODEL = {"object": "model", "created": 0, "owned_by": "llama-orch", "pools": ["default"], "ctx_max": 4096}
MODELS = {"object": "list", "data": [{**MODEL, "id": "slow", "ready": False}, {**MODEL, "id": "tiny", "ready": True}]}
CHAT = "POST /v1/chat/completions"


def chunk(delta: dict[str, object], finish_reason: str | None = None) -> bytes:
    """Return a chunk as llama-server writes it and the queen relays it."""
    choice = {"finish_reason": finish_reason, "index": 0, "delta": delta}
    head = {"created": 1795000001, "id": "chatcmpl-x", "model": "tiny", "object": "chat.completion.chunk"}
    return b"data: " + json.dumps({"choices": [choice], **head}).encode() + b"\n\n"


USAGE = {"completion_tokens": 2, "prompt_tokens": 9, "total_tokens": 11}
CHAT_HEAD = b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
LAST_CHUNKS = (
    chunk({}, "stop")
    + b'data: {"choices":[],"id":"chatcmpl-x","model":"tiny","object":"chat.completion.chunk","usage":'
    + json.dumps(USAGE).encode()
    + b"}\n\n: keep-alive\n\ndata: [DONE]\n\n"
)


def chat_begun(*texts: str) -> bytes:
    """Return an incomplete streamed answer of /v1/chat/completions."""
    return CHAT_HEAD + chunk({"role": "assistant", "content": None}) + b"".join(chunk({"content": t}) for t in texts)


def chat(*texts: str) -> bytes:
    """Return a complete streamed answer."""
    return chat_begun(*texts) + LAST_CHUNKS


def chatting(*answers: bytes) -> dict[str, list[bytes]]:
    """Return the script of a conversation."""
    return {"GET /v1/models": [reply(200, MODELS)], CHAT: list(answers)}


def submitting(*streams: bytes, **more: bytes) -> dict[str, list[bytes]]:
    """Return the script of one task."""
    return {
        "POST /v2/tasks": [more.get("accepted", reply(202, ACCEPTED))],
        f"GET {EVENTS}": list(streams),
        f"POST {CANCEL}": [reply(204)],
    }


class _Handler(socketserver.StreamRequestHandler):
    queen: ScriptedQueen

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
                self.queen.hold(line, self.connection)
        except OSError:
            return  # orchctl has closed the connection


class _Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET
    allow_reuse_address = True
    daemon_threads = False


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = False


@contextmanager
def serve(answers: dict[str, list[bytes]], path: Path | None = None) -> Iterator[ScriptedQueen]:
    """Serve the script on a port, or on a Unix socket at `path`."""
    queen = ScriptedQueen(answers)
    handler: Callable[..., _Handler] = type("Handler", (_Handler,), {"queen": queen})
    with _UnixServer(str(path), handler) if path else _Server(("127.0.0.1", 0), handler) as server:
        queen.url = f"unix:{path}" if path else f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield queen
        finally:
            server.shutdown()
            thread.join()
