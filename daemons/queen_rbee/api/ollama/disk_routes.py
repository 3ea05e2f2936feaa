"""Routes of Ollama's API that change which models are on the disk of this machine: pull and delete.

As with `orchctl pull` and `orchctl rm`, only those may who can use the Unix sockets of the daemons: root and the
group llama-orch. A pull of a model that is served already succeeds for everybody, since nothing is changed.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from pydantic import JsonValue

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.http.server.error_shapes import ollama_error
from llama_orch.http.server.exchange import Exchange
from llama_orch.http.server.routes import JSON, Reply
from llama_orch.telemetry import correlation
from queen_rbee.api.ollama.connected import while_connected
from queen_rbee.api.ollama.declared import NAME_SHAPE, NDJSON, disk_route, schema
from queen_rbee.api.ollama.names import find_model
from queen_rbee.pools.model_lookup import ModelCatalog
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.event_log import encode_json

if TYPE_CHECKING:
    from queen_rbee.api.ollama.provisioner import DiskModels

Lines = AsyncGenerator[dict[str, JsonValue], None]

POLL_S = 0.5
CANCEL_LIMIT_S = 5.0
PROGRESS = Reply(
    "The progress, until the status is `success`.", {JSON: schema("PullProgress"), NDJSON: schema("PullProgress")}
)
REMOVED = Reply("The model has been removed.")


class OllamaDiskRoutes:
    """`runtime_dir` is the handoff directory, beside which engine-provisioner's socket is."""

    def __init__(self, registry: PoolRegistry, catalog: ModelCatalog, runtime_dir: Path) -> None:
        self._registry = registry
        self._catalog = catalog
        self._runtime_dir = runtime_dir

    @disk_route(
        "POST", "/api/pull", "Fetch a model (Ollama's API)", "PullRequest", {"hub": {"model": "hf:org/repo"}}, PROGRESS
    )
    async def ollama_pull(self, exchange: Exchange) -> None:
        from queen_rbee.api.ollama.request import PullRequest, parse

        request = parse(PullRequest, await exchange.body(shape=NAME_SHAPE))
        lines = _served() if self._serves(request.model) else await self._begin(request.model)

        async def send() -> None:
            async with aclosing(lines):
                await (_stream(exchange, lines) if request.stream is not False else _send_last(exchange, lines))

        await while_connected(exchange, send)

    @disk_route(
        "DELETE", "/api/delete", "Remove a model (Ollama's API)", "DeleteRequest", {"hub": {"model": "hf:o/r"}}, REMOVED
    )
    async def ollama_delete(self, exchange: Exchange) -> None:
        from queen_rbee.api.ollama.pulls import find_on_disk
        from queen_rbee.api.ollama.request import DeleteRequest, parse

        request = parse(DeleteRequest, await exchange.body(shape=NAME_SHAPE))
        _only_operators("removed", f"orchctl rm {request.model}")
        model = self._catalog.model(request.model)
        disk = self._disk()
        found = find_on_disk(model.model_ref if model else request.model, await disk.models())
        await disk.remove(found.ref)
        await exchange.send(200)

    def _serves(self, name: str) -> bool:
        try:
            find_model(name, self._catalog, self._registry)
        except ApiError:
            return False
        return len(self._registry.replicas) > 0

    async def _begin(self, name: str) -> Lines:
        """Begin a pull and return its progress. Raises ApiError."""
        from queen_rbee.api.ollama.pulls import reference

        _only_operators("pulled", f"orchctl pull {name}")
        disk = self._disk()
        return _progress(disk, await disk.pull(reference(name)))

    def _disk(self) -> "DiskModels":
        from queen_rbee.api.ollama.provisioner import DiskModels

        return DiskModels(self._runtime_dir)


async def _progress(disk: "DiskModels", identifier: str) -> Lines:
    """Yield a line now and then until the pull has ended. Cancels the pull if it is closed before."""
    from queen_rbee.api.ollama.pulls import progress_line

    ended = False
    try:
        yield {"status": "pulling manifest"}
        while not ended:
            operation = await disk.operation(identifier)
            ended = operation.state.ended
            yield progress_line(operation)
            if not ended:
                await trio.sleep(POLL_S)
    finally:
        if not ended:
            with trio.CancelScope(shield=True), trio.move_on_after(CANCEL_LIMIT_S), suppress(ApiError):
                await disk.cancel(identifier)


async def _served() -> Lines:
    yield {"status": "success"}


async def _stream(exchange: Exchange, lines: Lines) -> None:
    await exchange.open_stream(200, [("content-type", NDJSON), ("cache-control", "no-store")])
    try:
        async for line in lines:
            await exchange.write(f"{encode_json(line)}\n".encode())
    except ApiError as error:
        await exchange.write(f"{encode_json(ollama_error(error.body))}\n".encode())
    await exchange.finish()


async def _send_last(exchange: Exchange, lines: Lines) -> None:
    last: dict[str, JsonValue] = {}
    async for line in lines:
        last = line
    await exchange.send_json(500 if "error" in last else 200, last)


def _only_operators(done: str, command: str) -> None:
    """Raises ApiError 403 unless the request came over the Unix socket."""
    if correlation.peer.get() is not None:
        message = f"models are {done} over the Unix socket of queen-rbee only, by root and the group llama-orch"
        hint = f"On the machine that has the models, run: {command}"
        raise ApiError(403, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint))
