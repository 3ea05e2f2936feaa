"""From the state of the queen to the documents that viewers get. Pure functions of what the components hold."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from llama_orch.contracts.catalog import CatalogModel
from llama_orch.contracts.gpus import GpuView
from llama_orch.contracts.live import LiveMemory
from llama_orch.contracts.nodes import NodeView
from llama_orch.contracts.pools import MemoryBudget, PoolStatus
from llama_orch.contracts.tasks import TaskState, TaskView
from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.pools.candidates import public_pool
from queen_rbee.tasks.task import Task

T = TypeVar("T")

RUNNING_LIMIT = 200
WAITING_LIMIT = 100
ENDED_LIMIT = 30
"""Numbers of tasks that viewers get. GET /v2/tasks has all."""


@dataclass
class Renderings(Generic[T]):
    """Documents of immutable objects by key. Only those are rendered that are not the same objects as last time."""

    render: Callable[[T], str]
    _known: dict[str, tuple[T, str]] = field(default_factory=dict)

    def of(self, objects: Iterable[tuple[str, T]]) -> dict[str, str]:
        before, self._known = self._known, {}
        for key, found in objects:
            known = before.get(key)
            self._known[key] = known if known and known[0] is found else (found, self.render(found))
        return {key: text for key, (_found, text) in self._known.items()}


def pool_name(pool: PoolStatus) -> str:
    """Return `pool_id`, or `pool_id@node_id` in a fleet, where several nodes may have pools of one id."""
    return f"{pool.pool_id}@{pool.node_id}" if pool.node_id else pool.pool_id


def pool_document(pool: PoolStatus) -> str:
    return public_pool(pool).model_dump_json(exclude={"replicas", "idle_s", "unload_in_s", "model_digests"})


def model_document(model: CatalogModel) -> str:
    """Return a model of the catalog without the digest of a file that does not match, which is for local operators."""
    return model.model_dump_json(exclude={"verification": {"actual"}})


def node_documents(nodes: Iterable[NodeView]) -> dict[str, str]:
    return {node.node_id: node.model_dump_json(exclude={"pools", "gpus", "age_ms"}) for node in nodes}


def gpus_of(nodes: Iterable[NodeView]) -> Iterator[GpuView]:
    """Yield the GPUs of nodes as their last heartbeats report them."""
    for node in nodes:
        names = {gpu.device_id: gpu for gpu in node.capabilities.gpus}
        for gpu in node.gpus:
            known = names.get(gpu.device_id)
            yield GpuView(
                node_id=node.node_id,
                index=gpu.device_id,
                uuid=gpu.uuid,
                name=known.name if known else "GPU",
                vram_total_bytes=gpu.vram_total_bytes,
                vram_free_bytes=gpu.vram_free_bytes,
                utilization=gpu.utilization,
                compute_capability=known.compute_capability if known else None,
                state=gpu.state,
                state_reason=gpu.reason,
                temperature_c=gpu.temperature_c,
                power_w=gpu.power_w,
            )


def gpu_documents(gpus: Iterable[GpuView]) -> dict[str, str]:
    return {f"{gpu.node_id or ''}/{gpu.uuid}": gpu.model_dump_json(exclude={"processes"}) for gpu in gpus}


def memory_documents(memory: Mapping[str, Sequence[MemoryBudget]]) -> dict[str, str]:
    """Return the memory of all devices; `memory` is by source of the pool registry."""
    return {
        f"{source}/{device.device}": LiveMemory(
            machine=source.removeprefix("node "),
            device=device.device,
            total_bytes=device.total_bytes,
            free_bytes=device.free_bytes,
        ).model_dump_json()
        for source, devices in memory.items()
        for device in devices
    }


def task_views(newest_first: Iterable[Task], queue: AdmissionQueue[Task], forecast: Forecast) -> Iterator[TaskView]:
    """Yield the tasks that run, the first that wait in the order of service, and the last that ended."""
    running, ended = 0, 0
    for task in newest_first:
        if task.state is TaskState.RUNNING and running < RUNNING_LIMIT:
            running += 1
            yield task.view()
        elif task.state.final and ended < ENDED_LIMIT:
            ended += 1
            yield task.view()
    for position, task in enumerate(islice(queue.order(), WAITING_LIMIT)):
        yield task.view(position, forecast.start_ms(task.demand, position))
