"""The state of the queen for those who watch it: taken anew at most four times a second, and only while they do."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio

from llama_orch.contracts.catalog import CatalogModel
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.gpus import GpuList, GpuView
from llama_orch.contracts.live import LiveSummary
from llama_orch.contracts.nodes import NodeView
from llama_orch.contracts.operations import Operation
from llama_orch.contracts.pools import MemoryBudget, PoolStatus
from llama_orch.contracts.tasks import TaskView
from queen_rbee.catalog.catalog import Catalog
from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.fleet.managers import gpus
from queen_rbee.fleet.operations import Operations
from queen_rbee.live.board import Board, Documents, Seen
from queen_rbee.live.journal import RecentEvents
from queen_rbee.live.samples import (
    Renderings,
    gpu_documents,
    gpus_of,
    memory_documents,
    model_document,
    node_documents,
    pool_document,
    pool_name,
    task_views,
)
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.task import Task

VIEWER_LIMIT = 32
INTERVAL_S = 0.25
GPU_INTERVAL_S = 2.0
DUTY_CYCLE = 20
"""A sample that took much CPU time is followed by a pause this many times as long."""
T = TypeVar("T")


def measured(act: Callable[[], T]) -> tuple[float, T]:
    """Return the CPU time in seconds that `act` took, and its result. Time on a busy machine's clock says little."""
    began = time.thread_time()
    result = act()
    return time.thread_time() - began, result


@dataclass(frozen=True)
class Sample:
    """The state at one moment, to be rendered in a thread."""

    summary: LiveSummary
    nodes: Sequence[NodeView]
    gpus: Sequence[GpuView]
    memory: Mapping[str, Sequence[MemoryBudget]]
    pools: Sequence[PoolStatus]
    tasks: Sequence[TaskView]
    operations: Sequence[Operation]
    models: Sequence[CatalogModel]


@dataclass
class Live:
    """Samples the components for any number of viewers together. It has no task of its own: the viewers' tasks ask.

    In HOME_PROFILE nobody reports GPUs, so the task of one viewer asks pool-managerd for them.
    """

    registry: PoolRegistry
    fleet: Fleet
    queue: AdmissionQueue[Task]
    book: TaskBook
    forecast: Forecast
    operations: Operations
    catalog: Catalog
    journal: RecentEvents = field(default_factory=RecentEvents)
    board: Board = field(default_factory=Board)
    viewers: int = 0
    closed: bool = False
    """Whether the streams shall end, because the daemon stops."""
    interval_s: float = INTERVAL_S
    """The present time between two samples."""
    _due_at: float = float("-inf")
    _gpus: GpuList = field(default_factory=lambda: GpuList(gpus=[], count=0))
    _asking: bool = False
    _sampling: bool = False
    _pools: Renderings[PoolStatus] = field(default_factory=lambda: Renderings(pool_document))
    _models: Renderings[CatalogModel] = field(default_factory=lambda: Renderings(model_document))

    @contextmanager
    def viewer(self) -> Iterator[Seen]:
        """Count a viewer while the block lasts. Raises ApiError 503 if there are VIEWER_LIMIT already."""
        if self.viewers >= VIEWER_LIMIT:
            message = f"{VIEWER_LIMIT} viewers follow the state of the queen, and no more are served"
            hint = "Close other pages, or use GET /v2/pools and GET /v2/tasks."
            raise ApiError(503, ErrorBody(code=ErrorCode.ADMISSION_REJECT, message=message, hint=hint, retriable=True))
        self.viewers += 1
        try:
            yield Seen()
        finally:
            self.viewers -= 1

    async def refresh(self) -> None:
        """Bring the board up to date, unless another viewer does that now, or did it less than an interval ago."""
        began = trio.current_time()
        if self._sampling or began < self._due_at:
            return
        self._sampling = True
        try:
            spent_s, sample = measured(self._sample)
            # in a thread: the first documents of thousands of pools take a quarter of a second
            rendered_s, sections = await trio.to_thread.run_sync(measured, partial(self._render, sample))
        finally:
            self._sampling = False
        for section, documents in sections.items():
            self.board.put(section, documents)
        self.interval_s = max(INTERVAL_S, DUTY_CYCLE * (spent_s + rendered_s))
        # half of it: several viewers, each with its own rhythm, share one sample
        self._due_at = began + self.interval_s / 2

    async def follow_gpus(self) -> None:
        """Ask pool-managerd for its GPUs every GPU_INTERVAL_S seconds, unless another viewer does or nodes report."""
        while True:
            if not self._asking and not self.fleet.size:
                self._asking = True
                try:
                    self._gpus = await gpus(self.operations.managers)
                finally:
                    self._asking = False
            await trio.sleep(GPU_INTERVAL_S)

    def _sample(self) -> "Sample":
        nodes = self.fleet.views()
        return Sample(
            summary=self._summary(),
            nodes=nodes,
            gpus=[*gpus_of(nodes)] if nodes else self._gpus.gpus,
            memory=dict(self.registry.memory()),
            pools=self.registry.pools(),
            tasks=[*task_views(self.book.newest_first(), self.queue, self.forecast)],
            operations=self.operations.views(),
            models=self.catalog.models(),
        )

    def _render(self, sample: "Sample") -> dict[str, Documents]:
        return {
            "queen": {"queen": sample.summary.model_dump_json()},
            "nodes": node_documents(sample.nodes),
            "gpus": gpu_documents(sample.gpus),
            "memory": memory_documents(sample.memory),
            "pools": self._pools.of((pool_name(pool), pool) for pool in sample.pools),
            "tasks": {str(view.task_id): view.model_dump_json() for view in sample.tasks},
            "operations": {each.operation_id: each.model_dump_json() for each in sample.operations},
            "models": self._models.of((model.id, model) for model in sample.models),
            "journal": self.journal.documents(),
        }

    def _summary(self) -> LiveSummary:
        return LiveSummary(
            queued_interactive=self.queue.depth("interactive"),
            queued_batch=self.queue.depth("batch"),
            capacity=self.queue.capacity,
            policy=self.queue.policy,
            running=self.registry.leased,
            pools=len(self.registry.effective_pools()),
            pools_ready=self.registry.ready_pools,
            nodes=self.fleet.size,
            nodes_online=self.fleet.online,
            gpu_problems={} if self.fleet.size else self._gpus.problems,
        )
