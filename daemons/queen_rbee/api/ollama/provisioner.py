"""Client for the models on the disk of this machine: engine-provisioner's Unix socket, for root and the group
llama-orch, to which queen-rbee belongs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import trio
from pydantic import BaseModel, ValidationError

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.models import DiskModel, DiskModelList, ModelRemoved, PullRequest
from llama_orch.contracts.node_operations import NodeOperation, OperationAccepted
from llama_orch.http.client.client import UpstreamError, request
from llama_orch.http.client.connecting import unix_url
from llama_orch.telemetry import correlation

LIMIT_S = 5.0
REMOVE_LIMIT_S = 60.0
SIZE_LIMIT = 16 << 20
SOCKET = "engine-provisioner.sock"
SYSTEM_DIRECTORY = Path("/run/llama-orch")
HINT = "It has to run on the machine of queen-rbee: systemctl status engine-provisioner"

Model = TypeVar("Model", bound=BaseModel)


class DiskModels:
    """Pulls, lists and removes models. Every method raises ApiError: refusals as they are, 503 if nothing answers."""

    def __init__(self, runtime_dir: Path) -> None:
        self._sockets = (runtime_dir.parent / SOCKET, SYSTEM_DIRECTORY / SOCKET)

    async def pull(self, ref: str) -> str:
        """Begin a pull, or join the one that runs; return the id of its operation."""
        answer = await self._ask("POST", "/v2/models/pull", PullRequest.model_construct(ref=ref))
        return _parsed(OperationAccepted, answer).operation_id

    async def operation(self, identifier: str) -> NodeOperation:
        return _parsed(NodeOperation, await self._ask("GET", f"/v2/operations/{quote(identifier, safe='')}"))

    async def cancel(self, identifier: str) -> None:
        await self._ask("DELETE", f"/v2/operations/{quote(identifier, safe='')}")

    async def models(self) -> Sequence[DiskModel]:
        return _parsed(DiskModelList, await self._ask("GET", "/v2/models")).models

    async def remove(self, ref: str) -> int:
        """Remove a model that no pool uses; return how many bytes that freed."""
        answer = await self._ask("DELETE", f"/v2/models?ref={quote(ref, safe='')}", limit_s=REMOVE_LIMIT_S)
        return _parsed(ModelRemoved, answer).freed_bytes

    async def _ask(self, method: str, path: str, order: BaseModel | None = None, limit_s: float = LIMIT_S) -> bytes:
        socket = next((each for each in self._sockets if each.exists()), self._sockets[0])
        headers = {"content-type": "application/json", **correlation.passed_on()}
        url = unix_url(os.fspath(socket.absolute())) + path
        body = order.model_dump_json().encode() if order else b""
        try:
            with trio.fail_after(limit_s):
                async with request(
                    method, url, headers=headers, body=body, connect_s=limit_s, head_s=limit_s
                ) as answer:
                    status, content = answer.status, await answer.read(SIZE_LIMIT)
        except (UpstreamError, trio.TooSlowError) as error:
            reason = str(error) or f"no answer within {limit_s:g} s"
            raise _unavailable(f"engine-provisioner does not answer: {reason}") from error
        if not 200 <= status < 300:
            raise _refusal(status, content)
        return content


def _parsed(model: type[Model], content: bytes) -> Model:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise _unavailable("engine-provisioner sends an unexpected answer") from error


def _refusal(status: int, content: bytes) -> ApiError:
    try:
        found = ErrorBody.model_validate_json(content)
    except ValidationError:
        return _unavailable(f"engine-provisioner answers {status}")
    return ApiError(status, found.model_copy(update={"correlation_id": None}))


def _unavailable(message: str) -> ApiError:
    return ApiError(503, ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message=message, hint=HINT, retriable=True))
