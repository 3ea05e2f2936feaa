"""What the queen finds out about machines when she is asked: their GPUs, and whether she reaches them.

All are asked at once, each within `managers.LIMIT_S` seconds; who does not answer is told as a problem.
"""

import trio
from pydantic import BaseModel, Field, ValidationError

from llama_orch.contracts.gpus import GpuList, GpuView
from llama_orch.contracts.nodes import NodeReachability, NodeView
from llama_orch.http.client.client import UpstreamError
from queen_rbee.fleet.managers import Manager, Managers


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
