"""Client for the pool-managerds: on this machine in HOME_PROFILE, on every node in CLOUD_PROFILE.

All requests are bounded in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import trio
from pydantic import BaseModel, ValidationError

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, not_found
from llama_orch.contracts.gpus import GpuList, GpuView, NodeGpuList
from llama_orch.contracts.nodes import NodeReachability, NodeView
from llama_orch.http.client.client import UpstreamError, fetch, request
from llama_orch.http.tls.current import NO_TLS, CurrentTls
from llama_orch.settings.types import Secret
from llama_orch.telemetry import correlation
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.pools.source_reports import PoolKey

LIMIT_S = 5.0


@dataclass(frozen=True)
class PoolManager:
    """The address of a pool-managerd; `node_id` is None on the queen's own machine."""

    url: str
    node_id: str | None = None

    @property
    def name(self) -> str:
        """The name in messages."""
        return f"node {self.node_id}" if self.node_id else f"pool-managerd at {self.url}"


@dataclass(frozen=True)
class PoolManagers:
    """Finds pool-managerds and sends requests to them; `urls` are the configured ones of HOME_PROFILE."""

    fleet: Fleet
    registry: PoolRegistry
    urls: Sequence[str]
    token: Secret | None = None
    tls: CurrentTls = NO_TLS

    def all(self) -> list[PoolManager]:
        nodes = [PoolManager(node.address, node.node_id) for node in self.fleet.views()]
        return nodes or [PoolManager(url) for url in self.urls]

    def for_pool(self, key: PoolKey) -> PoolManager:
        """Return the pool-managerd of a pool. Raises ApiError 503 if none reports it."""
        if key[1]:
            return PoolManager(self.fleet.node(key[1]).address, key[1])
        source = self.registry.source_of(key)
        if source is not None and source in self.urls:
            return PoolManager(source)
        message = f"no pool-managerd reports pool {key[0]}"
        hint = "Check that pool-managerd runs (systemctl status pool-managerd), and ORCHD_POOL_MANAGERS."
        raise ApiError(503, ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message=message, hint=hint, retriable=True))

    async def post(
        self,
        manager: PoolManager,
        path: str,
        body: BaseModel | None = None,
        *,
        passed_on: Sequence[int] = (),
        limit_s: float = LIMIT_S,
    ) -> bytes:
        """Send a POST request and return the answer, which has to begin within `limit_s` seconds.

        Raises ApiError: 503 if the request fails or is refused, but a refusal with a status in `passed_on` as it is.
        """
        data = body.model_dump_json(exclude_none=True).encode() if body else b"{}"
        headers = {**self._headers(), "content-type": "application/json"}
        try:
            async with request(
                "POST",
                manager.url + path,
                headers=headers,
                body=data,
                connect_s=LIMIT_S,
                head_s=limit_s,
                tls=self.tls.client,
            ) as response:
                answer = await response.read(limit_s=LIMIT_S)
                if 200 <= response.status < 300:
                    return answer
                if response.status in passed_on and (refusal := _body(answer)):
                    raise ApiError(response.status, refusal.model_copy(update={"correlation_id": None}))
                raise _failed(manager, _describe(response.status, answer))
        except UpstreamError as error:
            raise _failed(manager, str(error)) from error

    async def get(self, manager: PoolManager, path: str) -> tuple[int, bytes]:
        """Send a GET request; return status and body. Raises UpstreamError."""
        return await fetch(manager.url + path, limit_s=LIMIT_S, headers=self._headers(), tls=self.tls.client)

    def _headers(self) -> dict[str, str]:
        token = {"authorization": f"Bearer {self.token.get_secret_value()}"} if self.token else {}
        return token | correlation.passed_on()


def _describe(status: int, body: bytes) -> str:
    found = _body(body)
    return f"status {status}: {found.message}" if found else f"status {status}"


def _body(answer: bytes) -> ErrorBody | None:
    try:
        return ErrorBody.model_validate_json(answer)
    except ValidationError:
        return None


def _failed(manager: PoolManager, reason: str) -> ApiError:
    message = f"request to {manager.name} failed: {reason}"
    hint = "See orchctl check, and journalctl -u pool-managerd on that machine."
    return ApiError(503, ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message=message, hint=hint, retriable=True))


async def gpus(managers: PoolManagers) -> GpuList:
    """Return the GPUs of all machines, sorted by node and index, and the problems by node id or URL."""
    found, problems = await _gpu_lists(managers)
    all_gpus = [gpu for listed in found.values() for gpu in listed]
    all_gpus.sort(key=lambda gpu: (gpu.node_id or "", gpu.index, -1 if gpu.mig_index is None else gpu.mig_index))
    return GpuList(gpus=all_gpus, count=len(all_gpus), problems=dict(sorted(problems.items())))


async def unfence_gpu(managers: PoolManagers, name: str, node_id: str | None) -> None:
    """End the fence of the GPU with this index or UUID; an index needs a node if several machines have it.

    Raises ApiError: 404 for an unknown GPU, 409 if several are meant or it is not fenced, 503 if its machine fails.
    """
    found, _problems = await _gpu_lists(managers)
    meant = [
        (manager, gpu)
        for manager, listed in found.items()
        for gpu in listed
        if gpu.mig_index is None and name in (gpu.uuid, str(gpu.index)) and node_id in (None, manager.node_id)
    ]
    if not meant:
        raise not_found("GPU", name, "See GET /v2/gpus for the indices and UUIDs of all GPUs.")
    if len(meant) > 1:
        nodes = ", ".join(sorted(manager.name for manager, _gpu in meant))
        raise _refused(f"several machines have a GPU {name}: {nodes}", "Name the node too, or the UUID of the GPU.")
    manager, gpu = meant[0]
    if gpu.state != "fenced":
        raise _refused(f"GPU {gpu.uuid} is not fenced, but {gpu.state}", "See GET /v2/gpus for the state of all GPUs.")
    await managers.post(manager, f"/v2/gpus/{gpu.uuid}/unfence")


def _refused(message: str, hint: str) -> ApiError:
    return ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint))


async def _gpu_lists(managers: PoolManagers) -> tuple[dict[PoolManager, list[GpuView]], dict[str, str]]:
    """Return the GPUs of each machine, and the problems by node id or URL."""
    found: dict[PoolManager, list[GpuView]] = {}
    problems: dict[str, str] = {}

    async def query(manager: PoolManager) -> None:
        try:
            answer = await _gpus_of(managers, manager)
        except UpstreamError as error:
            problems[manager.node_id or manager.url] = str(error)
            return
        found[manager] = [gpu.model_copy(update={"node_id": manager.node_id}) for gpu in answer.gpus]
        if answer.problem:
            problems[manager.node_id or manager.url] = answer.problem

    async with trio.open_nursery() as nursery:
        for manager in managers.all():
            if manager.node_id in managers.fleet.asleep:
                problems[manager.node_id or manager.url] = "the node is asleep"
            else:
                nursery.start_soon(query, manager)
    return found, problems


async def _gpus_of(managers: PoolManagers, manager: PoolManager) -> NodeGpuList:
    status, body = await managers.get(manager, "/v2/gpus")
    if status != 200:
        raise UpstreamError(f"status {status}")
    try:
        return NodeGpuList.model_validate_json(body)
    except ValidationError as error:
        raise UpstreamError("unexpected answer; check that both run the same release") from error


async def reachability(managers: PoolManagers, node: NodeView) -> NodeReachability:
    """Return whether the queen reaches a node at its registered address, with the token that tasks use."""
    started, problem = trio.current_time(), None
    try:
        status, _body = await managers.get(PoolManager(node.address, node.node_id), "/v2/pools")
        problem = None if status == 200 else f"status {status}"
    except UpstreamError as error:
        problem = str(error)
    latency_ms = round(1000 * (trio.current_time() - started), 1)
    return NodeReachability(
        node_id=node.node_id,
        address=node.address,
        reachable=problem is None,
        latency_ms=None if problem else latency_ms,
        problem=problem,
    )
