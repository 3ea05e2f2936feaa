"""The Exchange of hot handlers: body limits, answers, streams and errors."""

import json
import math
from typing import Any

import pytest
import trio
import trio.testing

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.http.server.exchange import ANY, BrokenOff, Exchange, Handler, HotRoutes, Message, answer


class Client:
    """The ASGI side of one request: `messages` to receive, and the messages sent."""

    def __init__(self, *messages: Message, then_silent: bool = False) -> None:
        self.sent: list[Message] = []
        self._send_in, self._receive_in = trio.open_memory_channel[Message](math.inf)
        for message in messages:
            self._send_in.send_nowait(message)
        self._silent = then_silent

    async def receive(self) -> Message:
        try:
            return self._receive_in.receive_nowait()
        except trio.WouldBlock:
            if self._silent:
                await trio.sleep_forever()
            return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def answer(self, handler: Handler, query: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the answer; status 0 without an answer."""
        scope = {"method": "POST", "path": "/hot", "headers": [(b"x-name", b"\xe9")], "query_string": query}
        scope["raw_path"] = b"/h%6Ft"
        await answer(handler, {}, scope, self.receive, self.send)
        if not self.sent:
            return 0, {}, b""
        head = {name.decode(): value.decode("latin-1") for name, value in self.sent[0]["headers"]}
        return self.sent[0]["status"], head, b"".join(message.get("body", b"") for message in self.sent[1:])


def part(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Message = {"type": "http.disconnect"}


async def echo(exchange: Exchange) -> None:
    await exchange.send(200, await exchange.body(limit=10, limit_s=5))


async def test_body_chunks_are_joined() -> None:
    status, head, body = await Client(part(b"01234"), part(b"56789"), part(b"", False)).answer(echo)
    assert (status, body) == (200, b"0123456789")
    assert head["content-length"] == "10"


async def test_body_above_limit_is_413_before_its_end() -> None:
    client = Client(part(b"01234"), part(b"567890"), part(b"never read"))
    status, _head, body = await client.answer(echo)
    assert status == 413
    assert "longer than 10 bytes" in json.loads(body)["message"]
    assert (await client.receive())["body"] == b"never read"


async def test_stalled_body_is_408(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    status, _head, body = await Client(part(b"01234"), then_silent=True).answer(echo)
    assert (status, trio.current_time() - began) == (408, 5.0)
    assert json.loads(body)["code"] == "INVALID_PARAMS"


async def test_client_leaving_in_body_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    assert (await Client(part(b"0"), GONE).answer(echo))[0] == 0
    assert caplog.text == ""


async def test_gone_returns_when_client_leaves() -> None:
    async def watch(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.gone()

    await Client(part(b"", False), part(b"", False), GONE).answer(watch)


async def test_stream_is_sent_in_chunks() -> None:
    async def stream(exchange: Exchange) -> None:
        await exchange.open_stream(200, [("content-type", "text/event-stream")])
        await exchange.write(b"one")
        await exchange.write(b"two")
        await exchange.finish()

    client = Client()
    assert (await client.answer(stream))[::2] == (200, b"onetwo")
    assert [message.get("more_body") for message in client.sent] == [None, True, True, False]
    assert "content-length" not in dict(client.sent[0]["headers"])


async def test_204_has_no_content_length() -> None:
    async def nothing(exchange: Exchange) -> None:
        await exchange.send(204)

    assert (await Client().answer(nothing))[:2] == (204, {})


async def test_query_and_headers_are_read() -> None:
    seen: list[Any] = []

    async def look(exchange: Exchange) -> None:
        seen.extend((exchange.query, exchange.headers))
        await exchange.send(200)

    await Client().answer(look, b"verbose=true&empty=&verbose=false&x=%C3%A9")
    assert seen == [{"verbose": "false", "empty": "", "x": "é"}, {"x-name": "é"}]


async def test_api_error_becomes_the_answer() -> None:
    async def refuse(_exchange: Exchange) -> None:
        body = ErrorBody(code=ErrorCode.ADMISSION_REJECT, message="full", retriable=True, retry_after_ms=1500)
        raise ApiError(429, body, (("retry-after", "2"),))

    status, head, body = await Client().answer(refuse)
    assert (status, head["retry-after"], head["content-type"]) == (429, "2", "application/json")
    assert json.loads(body) == {
        "code": "ADMISSION_REJECT",
        "message": "full",
        "retriable": True,
        "retry_after_ms": 1500,
    }


async def test_internal_error_is_500_without_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_exchange: Exchange) -> None:
        raise KeyError("secret detail")

    status, _head, body = await Client().answer(fail)
    assert (status, json.loads(body)["code"]) == (500, "INTERNAL")
    assert b"secret detail" not in body
    assert "KeyError: 'secret detail'" in caplog.text


async def test_error_after_start_breaks_off_the_answer() -> None:
    async def fail(exchange: Exchange) -> None:
        await exchange.open_stream(200, [])
        await exchange.write(b"half")
        raise ApiError(503, ErrorBody(code=ErrorCode.POOL_UNREADY, message="late"))

    client = Client()
    with pytest.raises(ApiError, match="late"):
        await client.answer(fail)
    assert client.sent[-1]["more_body"] is True


async def test_cancel_before_the_head_leaves_room_for_an_error() -> None:
    class Cancelled(Client):
        async def send(self, message: Message) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()
            await super().send(message)

    async def late(exchange: Exchange) -> None:
        with trio.CancelScope() as deadline:
            deadline.cancel()
            await exchange.open_stream(200, ())
        raise ApiError(504, ErrorBody(code=ErrorCode.DEADLINE_UNMET, message="late"))

    status, _head, body = await Cancelled().answer(late)
    assert (status, json.loads(body)["message"]) == (504, "late")


async def test_broken_source_breaks_off_without_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(exchange: Exchange) -> None:
        await exchange.open_stream(200, ())
        await exchange.write(b"half")
        raise BrokenOff

    client = Client()
    with pytest.raises(BrokenOff):
        await client.answer(fail)
    assert client.sent[-1]["more_body"]
    assert caplog.text == ""


@pytest.mark.parametrize(("query", "target"), [(b"", "/h%6Ft"), (b"a=%2F&a=b", "/h%6Ft?a=%2F&a=b")])
async def test_target_is_path_and_query_as_received(query: bytes, target: str) -> None:
    async def look(exchange: Exchange) -> None:
        await exchange.send(200, exchange.target.encode())

    assert (await Client().answer(look, query))[2] == target.encode()


async def nothing(_exchange: Exchange) -> None:
    pass


@pytest.mark.parametrize(
    ("path", "variables"),
    [
        ("/pools/a/engine/v1/models", {"id": "a", "path": "v1/models"}),
        ("/pools/a/engine/x", {"id": "a", "path": "x"}),
        ("/pools/a/engine//", {"id": "a", "path": "/"}),
        ("/pools/a/engine/", None),
        ("/pools/a/b/engine/x", None),
    ],
)
def test_pattern_can_match_rest_of_path(path: str, variables: dict[str, str] | None) -> None:
    routes = HotRoutes()
    routes.add(ANY, "/pools/{id}/engine/{path...}", nothing)
    for method in ("GET", "POST", "BREW"):
        found = routes.find(method, path)
        assert (found and found[1]) == variables
