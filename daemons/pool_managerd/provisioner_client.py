"""Client for engine-provisioner's local API: asks it to load and unload pools, and what it does."""

import os
from pathlib import Path

import trio
from pydantic import TypeAdapter, ValidationError

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.node_operations import NodeOperation, NodeOperationList
from llama_orch.http.client.client import UpstreamError, fetch, request
from llama_orch.http.client.connecting import unix_url

LIMIT_S = 5.0
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

    async def _ask(self, pool_id: str, verb: str) -> None:
        url = f"{unix_url(os.fspath(self._socket().absolute()))}/v2/pools/{pool_id}/{verb}"
        try:
            with trio.fail_after(LIMIT_S):
                async with request("POST", url, connect_s=LIMIT_S, head_s=LIMIT_S) as answer:
                    status, body = answer.status, await answer.read(SIZE_LIMIT)
        except (UpstreamError, trio.TooSlowError) as error:
            reason = str(error) or f"no answer within {LIMIT_S:g} s"
            raise _unavailable(pool_id, f"engine-provisioner does not answer: {reason}") from error
        if status != 202:
            raise _refusal(pool_id, status, body)


def _refusal(pool_id: str, status: int, body: bytes) -> ApiError:
    """Return the error for an answer that is not 202."""
    try:
        found = ERROR.validate_json(body)
    except ValidationError:
        return _unavailable(pool_id, f"engine-provisioner answers {status}")
    if status == 404:
        message = f"pool {pool_id} is not in engine-provisioner's pools file, so it cannot be loaded or unloaded"
        hint = "Its engine was announced by a handoff file, and is started and stopped elsewhere."
        return ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint, pool_id=pool_id))
    if status == 409:
        return ApiError(409, found.model_copy(update={"correlation_id": None}))
    return _unavailable(pool_id, f"engine-provisioner answers {status}: {found.message}")


def _unavailable(pool_id: str, message: str) -> ApiError:
    body = ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message=message, hint=HINT, retriable=True, pool_id=pool_id)
    return ApiError(503, body)
