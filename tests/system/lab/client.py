"""An HTTP client that runs outside the machine of the daemons: JSON and server-sent events."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tests.system.lab.container import Container
from tests.system.lab.network import socket_in_network_of

QUEEN = 8080
POOL_MANAGER = 9200


@dataclass(frozen=True)
class Answer:
    """A response. The names of the headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        """Parse the body. Raises ValueError."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Event:
    """A server-sent event."""

    name: str
    data: Any


class _Connection(http.client.HTTPConnection):
    """A connection to 127.0.0.1 in the network of a container."""

    def __init__(self, container: Container, port: int, limit_s: float) -> None:
        super().__init__("127.0.0.1", port, timeout=limit_s)
        self._container = container

    def connect(self) -> None:
        self.sock = socket_in_network_of(self._container.init)
        self.sock.settimeout(self.timeout)
        self.sock.connect((self.host, self.port))


@dataclass(frozen=True)
class Client:
    """A client for `port` of a container, with a new connection for each request. `limit_s` limits every wait."""

    container: Container
    port: int = QUEEN
    limit_s: float = 30.0
    token: str | None = None

    def get(self, path: str) -> Answer:
        """GET `path`. Raises OSError or HTTPException if there is no response."""
        return self.send("GET", path)

    def post(self, path: str, body: object = None) -> Answer:
        """POST `body` as JSON. Raises the same exceptions as `get`."""
        return self.send("POST", path, body)

    def send(self, method: str, path: str, body: object = None) -> Answer:
        """Send a request. Raises the same exceptions as `get`."""
        with closing(_Connection(self.container, self.port, self.limit_s)) as connection:
            text = None if body is None else json.dumps(body)
            kind = {"Content-Type": "application/json"} if text else {}
            connection.request(method, path, text, {**kind, **self._authorization})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read().decode())

    def events(self, path: str) -> Iterator[Event]:
        """Yield the server-sent events of `path` as they arrive. Raises the same exceptions as `get`."""
        with closing(_Connection(self.container, self.port, self.limit_s)) as connection:
            connection.request("GET", path, headers={"Accept": "text/event-stream", **self._authorization})
            response = connection.getresponse()
            assert response.status == 200, response.read().decode()
            fields: dict[str, str] = {}
            for line in response:
                name, _colon, value = line.decode().rstrip("\r\n").partition(":")
                if name:
                    fields[name] = value.removeprefix(" ")
                elif "data" in fields:
                    yield Event(fields.get("event", "message"), json.loads(fields["data"]))
                    fields = {}

    @property
    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


@dataclass(frozen=True)
class Outcome:
    """Result of a task: its text, the number of tokens, and the last event."""

    text: str
    tokens: int
    last: Event


def submit(client: Client, **fields: object) -> str:
    """Submit a task and return its id. Fails if queen-rbee does not accept it."""
    answer = client.post("/v2/tasks", {"prompt": "the river", "max_tokens": 16, "seed": 1, **fields})
    assert answer.status == 202, answer.body
    return str(answer.json["task_id"])


def outcome(client: Client, task_id: str) -> Outcome:
    """Read the events of a task to the end."""
    events = list(client.events(f"/v2/tasks/{task_id}/events"))
    tokens = [event.data["t"] for event in events if event.name == "token"]
    return Outcome("".join(tokens), len(tokens), events[-1])


def complete(client: Client, **fields: object) -> Outcome:
    """Submit a task and read its events to the end. Fails if queen-rbee does not accept it."""
    return outcome(client, submit(client, **fields))
