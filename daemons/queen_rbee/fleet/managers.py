"""The pool-managerds as the queen bids and asks them: on this machine in HOME_PROFILE, on each node in CLOUD_PROFILE.

Every request is bounded; what cannot be had is an ApiError in words.
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import trio
from pydantic import BaseModel, Field, ValidationError

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.nodes import GpuList, GpuView, NodeReachability, NodeView
from llama_orch.http.client.client import UpstreamError, fetch, request
from llama_orch.settings.types import Secret
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.pools.claims import PoolKey
from queen_rbee.pools.registry import Registry

LIMIT_S = 5.0


@dataclass(frozen=True)
class Manager:
    """One of them; `node_id` is None on the queen's own machine."""

    url: str
    node_id: str | None = None

    @property
    def name(self) -> str:
        """As it is called in messages."""
        return f"node {self.node_id}" if self.node_id else f"pool-managerd at {self.url}"


@dataclass(frozen=True)
class Managers:
    """How they are found; `urls` are those of HOME_PROFILE."""

    fleet: Fleet
    registry: Registry
    urls: Sequence[str]
    token: Secret | None = None
    tls: ssl.SSLContext | None = None

    def every(self) -> list[Manager]:
        """All of them."""
        nodes = [Manager(node.address, node.node_id) for node in self.fleet.views()]
        return nodes or [Manager(url) for url in self.urls]

    def of_pool(self, key: PoolKey) -> Manager:
        """The one that answers for a pool. Raises ApiError where nobody does."""
        if key[1]:
            return Manager(self.fleet.node(key[1]).address, key[1])
        source = self.registry.source_of(key)
        if source is not None and source in self.urls:
            return Manager(source)
        message = f"no pool-managerd answers for pool {key[0]}"
        hint = "Is pool-managerd running (systemctl status pool-managerd)? See ORCHD_POOL_MANAGERS."
        raise ApiError(503, ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message=message, hint=hint, retriable=True))

    async def bid(self, manager: Manager, path: str, body: BaseModel | None = None) -> None:
        """POST to one of them. Raises ApiError."""
        data = body.model_dump_json(exclude_none=True).encode() if body else b"{}"
        headers = {**self._headers(), "content-type": "application/json"}
        try:
            async with request(
                "POST",
                manager.url + path,
                headers=headers,
                body=data,
                connect_s=LIMIT_S,
                head_s=LIMIT_S,
                tls=self.tls,
            ) as response:
                answer = await response.read(limit_s=LIMIT_S)
                if not 200 <= response.status < 300:
                    raise _failed(manager, _words(response.status, answer))
        except UpstreamError as error:
            raise _failed(manager, str(error)) from error

    async def ask(self, manager: Manager, path: str) -> tuple[int, bytes]:
        """GET from one of them: status and body. Raises UpstreamError."""
        return await fetch(manager.url + path, limit_s=LIMIT_S, headers=self._headers(), tls=self.tls)

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token.get_secret_value()}"} if self.token else {}


def _words(status: int, body: bytes) -> str:
    try:
        return f"it answers {status}: {ErrorBody.model_validate_json(body).message}"
    except ValidationError:
        return f"it answers {status}"


def _failed(manager: Manager, reason: str) -> ApiError:
    message = f"{manager.name} cannot be asked: {reason}"
    hint = "See orchctl check, and on that machine journalctl -u pool-managerd."
    return ApiError(503, ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message=message, hint=hint, retriable=True))


class _Answer(BaseModel):
    gpus: list[GpuView] = Field(max_length=256)
    problem: str | None = None


async def gpus(managers: Managers) -> GpuList:
    """The GPUs of all machines, by node and index."""
    found: list[GpuView] = []
    problems: dict[str, str] = {}

    async def look(manager: Manager) -> None:
        try:
            answer = await _gpus_of(managers, manager)
        except UpstreamError as error:
            problems[manager.node_id or manager.url] = str(error)
            return
        found.extend(gpu.model_copy(update={"node_id": manager.node_id}) for gpu in answer.gpus)
        if answer.problem:
            problems[manager.node_id or manager.url] = answer.problem

    async with trio.open_nursery() as nursery:
        for manager in managers.every():
            nursery.start_soon(look, manager)
    found.sort(key=lambda gpu: (gpu.node_id or "", gpu.index))
    return GpuList(gpus=found, count=len(found), problems=dict(sorted(problems.items())))


async def _gpus_of(managers: Managers, manager: Manager) -> _Answer:
    status, body = await managers.ask(manager, "/v2/gpus")
    if status != 200:
        raise UpstreamError(f"it answers {status}")
    try:
        return _Answer.model_validate_json(body)
    except ValidationError as error:
        raise UpstreamError("its answer is not understood; do the versions differ?") from error


async def reachability(managers: Managers, node: NodeView) -> NodeReachability:
    """Whether the queen reaches a node at the address that it gave; with the token, as her tasks do."""
    began, problem = trio.current_time(), None
    try:
        status, _body = await managers.ask(Manager(node.address, node.node_id), "/v2/pools")
        problem = None if status == 200 else f"it answers {status}"
    except UpstreamError as error:
        problem = str(error)
    latency_ms = round(1000 * (trio.current_time() - began), 1)
    return NodeReachability(
        node_id=node.node_id,
        address=node.address,
        reachable=problem is None,
        latency_ms=None if problem else latency_ms,
        problem=problem,
    )
