"""Client for engine-provisioner's local API: asks it to load, unload, reload and purge pools, and what it does."""

import os
from pathlib import Path

import trio
from pydantic import BaseModel, TypeAdapter, ValidationError

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.node_operations import NodeOperation, NodeOperationList
from llama_orch.contracts.reloads import PoolPurged, ReloadCancel, ReloadOrder, SwitchOrder
from llama_orch.http.client.client import UpstreamError, fetch, request
from llama_orch.http.client.connecting import unix_url
from llama_orch.telemetry import correlation

LIMIT_S = 5.0
PURGE_LIMIT_S = 60.0
"""Large files take a while to be removed."""
SIZE_LIMIT = 1 << 16
SOCKET = "engine-provisioner.sock"
SYSTEM_DIRECTORY = Path("/run/llama-orch")
HINT = "It has to run on this machine: systemctl status engine-provisioner"
ERROR = TypeAdapter(ErrorBody)


class ProvisionerClient:
    """Asks the engine-provisioner of this machine.

    Its socket is beside the handoff directory, or in /run/llama-orch if systemd has created it there.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._sockets = (runtime_dir.parent / SOCKET, SYSTEM_DIRECTORY / SOCKET)

    async def load(self, pool_id: str) -> None:
        """Ask for the pool to be loaded; return once that is accepted.

        Raises ApiError: 409 for a pool that engine-provisioner does not start, 503 if it does not answer.
        """
        await self._ask(pool_id, "load")

    async def unload(self, pool_id: str) -> None:
        """Ask for the pool to be unloaded; otherwise as `load`."""
        await self._ask(pool_id, "unload")

    async def operations(self) -> list[NodeOperation]:
        """Return the operations of engine-provisioner, such as downloads; none if it does not run or answer."""
        socket = self._socket()
        if not socket.exists():
            return []
        url = f"{unix_url(os.fspath(socket.absolute()))}/v2/operations"
        try:
            status, body = await fetch(url, limit_s=LIMIT_S)
            return NodeOperationList.model_validate_json(body).operations if status == 200 else []
        except (UpstreamError, ValidationError):
            return []

    def _socket(self) -> Path:
        return next((path for path in self._sockets if path.exists()), self._sockets[0])

    async def reload(self, pool_id: str, order: ReloadOrder) -> None:
        """Ask for the pool to be reloaded, with a model that is on the disk. Raises ApiError as `load`, and 400."""
        await self._ask(pool_id, "reload", order.model_copy(update={"on_disk": True}))

    async def switch(self, pool_id: str, order: SwitchOrder) -> None:
        """Say that a pool whose reload is staged is being drained, or has been. Raises ApiError as `load`."""
        await self._ask(pool_id, "reload/switch", order)

    async def cancel_reload(self, pool_id: str, cancel: ReloadCancel) -> None:
        """Call a reload off. Raises ApiError as `load`."""
        await self._ask(pool_id, "reload/cancel", cancel)

    async def purge(self, pool_id: str) -> PoolPurged:
        """Remove from the disk what only this pool uses. Raises ApiError as `load`; 409 unless it is unloaded."""
        body = await self._ask(pool_id, "purge", limit_s=PURGE_LIMIT_S)
        try:
            return PoolPurged.model_validate_json(body)
        except ValidationError as error:
            raise _unavailable(pool_id, "engine-provisioner sends an unexpected answer") from error

    async def _ask(self, pool_id: str, verb: str, order: BaseModel | None = None, limit_s: float = LIMIT_S) -> bytes:
        """Return the answer. Raises ApiError."""
        content = order.model_dump_json(exclude_none=True).encode() if order else b"{}"
        headers = {"content-type": "application/json", **correlation.passed_on()}
        url = f"{unix_url(os.fspath(self._socket().absolute()))}/v2/pools/{pool_id}/{verb}"
        try:
            with trio.fail_after(limit_s):
                async with request(
                    "POST", url, headers=headers, body=content, connect_s=LIMIT_S, head_s=limit_s
                ) as answer:
                    status, body = answer.status, await answer.read(SIZE_LIMIT)
        except (UpstreamError, trio.TooSlowError) as error:
            reason = str(error) or f"no answer within {limit_s:g} s"
            raise _unavailable(pool_id, f"engine-provisioner does not answer: {reason}") from error
        if status not in (200, 202):
            raise _refusal(pool_id, status, body)
        return body


def _refusal(pool_id: str, status: int, body: bytes) -> ApiError:
    """Return the error for an answer that is not 202."""
    try:
        found = ERROR.validate_json(body)
    except ValidationError:
        return _unavailable(pool_id, f"engine-provisioner answers {status}")
    if status == 404:
        if found.pool_id:  # the pool is known, and its reload is not
            return ApiError(404, found.model_copy(update={"correlation_id": None}))
        message = f"pool {pool_id} is not in engine-provisioner's pools file, so it cannot be loaded or unloaded"
        hint = "Its engine was announced by a handoff file, and is started and stopped elsewhere."
        return ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint, pool_id=pool_id))
    if status in (400, 409):
        return ApiError(status, found.model_copy(update={"correlation_id": None}))
    return _unavailable(pool_id, f"engine-provisioner answers {status}: {found.message}")


def _unavailable(pool_id: str, message: str) -> ApiError:
    body = ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message=message, hint=HINT, retriable=True, pool_id=pool_id)
    return ApiError(503, body)
