"""A fake engine with OpenAI's endpoints as llama-server has them, which fails in the ways that engines fail.

A word in the request's body selects the behaviour. Formats are those observed with a real llama-server.
"""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

import trio

from tests.connections import receive_some
from tests.unit.queen_rbee.scripted_engine import HEAD, ScriptedEngine, chunk

FIXED: dict[str, object] = {"id": "chatcmpl-1", "created": 1795582409, "model": "tiny", "system_fingerprint": "b11669"}
USAGE = {"completion_tokens": 2, "prompt_tokens": 6, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 5}}
TIMINGS = {"cache_n": 5, "prompt_n": 1, "predicted_n": 2}
EMBEDDING: dict[str, object] = {"object": "list", "model": "tiny", "usage": {"prompt_tokens": 2, "total_tokens": 2}}
EMBEDDING |= {"data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}]}
TOO_LONG = {"error": {"code": 400, "message": "request exceeds the context", "type": "exceed_context_size_error"}}
OUT_OF_MEMORY = {"error": {"code": 500, "message": "out of memory", "type": "server_error"}}


def delta(finish_reason: str | None = None, index: int = 0, **fields: object) -> dict[str, object]:
    """Return one chunk of a chat."""
    choice = {"finish_reason": finish_reason, "index": index, "delta": fields}
    return {"choices": [choice], **FIXED, "object": "chat.completion.chunk"}


USAGE_CHUNK = {"choices": [], **FIXED, "object": "chat.completion.chunk", "usage": USAGE, "timings": TIMINGS}
CHAT = (delta(role="assistant", content=None), delta(content="Hel"), delta(content="lo"), delta("stop"), USAGE_CHUNK)
CHAT_WITHOUT_USAGE = (*CHAT[:-2], {**CHAT[-2], "timings": TIMINGS})
"""The same for a request without include_usage."""


def events(chunks: Iterable[object], done: bool = True) -> bytes:
    """Return the chunks as server-sent events."""
    lines = [f"data: {json.dumps(item)}\n\n" for item in chunks]
    lines += ["data: [DONE]\n\n"] if done else []
    return "".join(lines).encode()


class ScriptedOpenAi(ScriptedEngine):
    """`body` is the last request's; `script` is the default answer."""

    body: dict[str, object]
    script: Iterable[object] = CHAT

    async def respond(self, stream: trio.SocketStream, request: bytes) -> None:
        """Behave as the body says; by default, answer with `script`."""
        head, _, body = request.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += await receive_some(stream)
        self.last_request, self.body = head + b"\r\n\r\n" + body, json.loads(body)
        if b"/v1/embeddings" in head or b"/v1/rerank" in head:
            await _document(stream, b"200 OK", EMBEDDING)
        elif b"refuse" in body:
            await _document(stream, b"400 Bad Request", TOO_LONG)
        elif b"break" in body:
            await _document(stream, b"500 Oops", OUT_OF_MEMORY)
        elif b"silence" in body:
            await self.wait_for_disconnect(stream)
        else:
            await self._stream(stream, body)

    async def _stream(self, stream: trio.SocketStream, body: bytes) -> None:
        if b"stall" in body:
            await stream.send_all(HEAD + chunk(events(CHAT[:2], done=False)))
            await self.wait_for_disconnect(stream)
        elif b"midway" in body:
            await stream.send_all(
                HEAD + chunk(events(CHAT[:2], done=False)) + chunk(events([OUT_OF_MEMORY], done=False))
            )
        elif b"nothing" in body:
            await stream.send_all(HEAD + chunk(events([])) + b"0\r\n\r\n")
        else:
            no_usage = self.script is CHAT and b'"include_usage": true' not in body
            await stream.send_all(HEAD + chunk(events(CHAT_WITHOUT_USAGE if no_usage else self.script)) + b"0\r\n\r\n")


async def _document(stream: trio.SocketStream, status: bytes, document: object) -> None:
    body = json.dumps(document).encode()
    await stream.send_all(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


@asynccontextmanager
async def scripted_openai() -> AsyncIterator[ScriptedOpenAi]:
    """Run a fake engine on a free loopback port."""
    engine = ScriptedOpenAi()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, engine.handle, 0, host="127.0.0.1"))
        engine.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield engine
        nursery.cancel_scope.cancel()
