"""Registration of routes, and responses that are built in a thread."""

import json
import threading
from typing import Any

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from quart_trio import QuartTrio

from llama_orch.contracts.meta import Liveness
from llama_orch.contracts.pools import PoolList
from llama_orch.http.server.app import create_app
from llama_orch.http.server.exchange import Exchange, HotRoutes
from llama_orch.http.server.mounting import ONE_AT_A_TIME, json_response_in_thread, mount
from llama_orch.http.server.routes import Deferred, Reply, RequestBody, gate_route, json_reply, route, routes_of

EMPTY = PoolList(pools=[], count=0)
LIMIT_S = 10
ALIVE = {202: json_reply("Alive.", Liveness)}


class Note(BaseModel):
    text: str = "nothing"


class NoteRoutes:
    @route("POST", "/notes/{name}", "Write a note", ALIVE, body=RequestBody(Note))
    async def write_note(self, note: Note, name: str) -> dict[str, str]:
        return {name: note.text}

    @route("PUT", "/notes", "Write a note or none", ALIVE, body=RequestBody(Deferred(__name__, "Note"), optional=True))
    async def write_optional_note(self, note: Note) -> dict[str, str]:
        return {"text": note.text}

    @route("GET", "/notes/{path...}", "Read a note", ALIVE)
    @route("GET", "/old/notes/{path...}", "Same", ALIVE, name="read_note_old")
    async def read_note(self, path: str) -> Liveness:
        return Liveness(status="ok")

    @route("DELETE", "/notes", "Delete all notes", {204: Reply("Deleted.")})
    async def delete_notes(self) -> None:
        return None

    @gate_route("GET", "/notes", "List notes", ALIVE)
    async def list_notes(self, exchange: Exchange) -> None:
        await exchange.send_json(200, [])


@pytest.fixture
def gate_routes() -> HotRoutes:
    return HotRoutes()


@pytest.fixture
def app(gate_routes: HotRoutes) -> QuartTrio:
    served = create_app("test", list, CollectorRegistry())
    mount(served, gate_routes, NoteRoutes())
    return served


async def asked(app: QuartTrio, method: str, path: str, body: object = None) -> tuple[int, object]:
    given: dict[str, Any] = {} if body is None else {"json": body}
    response = await app.test_client().open(path, method=method, **given)
    data = await response.get_data()
    return response.status_code, json.loads(data) if data else None


async def test_body_and_path_variables_reach_the_handler(app: QuartTrio) -> None:
    assert await asked(app, "POST", "/notes/a", {"text": "hello"}) == (200, {"a": "hello"})
    status, _error = await asked(app, "POST", "/notes/a", {"text": 1})
    assert status == 400


async def test_absent_optional_body_takes_the_defaults(app: QuartTrio) -> None:
    assert await asked(app, "PUT", "/notes") == (200, {"text": "nothing"})
    assert await asked(app, "PUT", "/notes", {"text": "a"}) == (200, {"text": "a"})


@pytest.mark.parametrize("path", ["/notes/a", "/notes/a/b", "/old/notes/a"])
async def test_model_is_sent_with_the_declared_status(app: QuartTrio, path: str) -> None:
    assert await asked(app, "GET", path) == (202, {"status": "ok"})


async def test_none_is_sent_as_204(app: QuartTrio) -> None:
    assert await asked(app, "DELETE", "/notes") == (204, None)


async def test_405_names_methods_of_the_gate_too(app: QuartTrio, gate_routes: HotRoutes) -> None:
    assert gate_routes.find("GET", "/notes")
    response = await app.test_client().post("/notes")
    assert response.status_code == 405
    assert {"GET", "PUT", "DELETE"} <= set(response.headers["allow"].split(", "))


def test_routes_keep_the_order_of_their_source() -> None:
    names = [declared.name for declared in routes_of(NoteRoutes)]
    assert names == [
        "write_note",
        "write_optional_note",
        "read_note",
        "read_note_old",
        "delete_notes",
        "list_notes",
    ]


async def test_loop_runs_while_a_response_is_built() -> None:
    advanced = threading.Event()

    def build() -> PoolList:
        assert advanced.wait(LIMIT_S)
        return EMPTY

    async with trio.open_nursery() as nursery:
        nursery.start_soon(json_response_in_thread, build)
        await trio.testing.wait_all_tasks_blocked()
        advanced.set()


async def test_one_response_is_built_at_a_time() -> None:
    released = threading.Event()

    def build() -> PoolList:
        assert released.wait(LIMIT_S)
        return EMPTY

    async with trio.open_nursery() as nursery:
        for _response in range(4):
            nursery.start_soon(json_response_in_thread, build)
        await trio.testing.wait_all_tasks_blocked()
        assert ONE_AT_A_TIME.statistics().tasks_waiting == 3
        released.set()
