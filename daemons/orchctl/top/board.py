"""The state of the queen as its stream of events tells it, one document after the other."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.gpus import GpuView
from llama_orch.contracts.live import LiveHello, LiveSummary
from llama_orch.contracts.pools import PoolStatus
from llama_orch.contracts.tasks import TaskState, TaskView

ELEMENTS = 10_000
"""Documents of a section that are kept."""


class LiveNode(Outbound):
    """A node as the stream has it: without pools and GPUs, which have sections of their own."""

    node_id: str
    status: str
    version: str
    address: str


SECTIONS: dict[str, type[BaseModel]] = {
    "queen": LiveSummary,
    "nodes": LiveNode,
    "pools": PoolStatus,
    "gpus": GpuView,
    "tasks": TaskView,
}
"""The sections that are shown; the stream has more."""


@dataclass(frozen=True)
class Situation:
    """What is known at one moment. `tasks` are those that run and those that wait; `now` is the queen's time.

    `problem` says why there is no connection; then the rest is what was known last.
    """

    url: str
    now: datetime
    hello: LiveHello | None = None
    summary: LiveSummary | None = None
    nodes: Sequence[LiveNode] = ()
    pools: Sequence[PoolStatus] = ()
    gpus: Sequence[GpuView] = ()
    tasks: Sequence[TaskView] = ()
    problem: str = ""


T = TypeVar("T", bound=BaseModel)


@dataclass
class Board:
    """Collects the documents of a queen at `url`. A new stream begins with `hello`, which empties the board."""

    url: str
    problem: str = ""
    ready: bool = False
    hello: LiveHello | None = None
    _hello_at: float = 0.0
    _heard_at: float = 0.0
    _documents: dict[str, dict[str, BaseModel]] = field(default_factory=dict)
    _next: dict[str, dict[str, BaseModel]] = field(default_factory=dict)

    def apply(self, name: str, data: str, now: float) -> None:
        """Take an event at `now`, in seconds of a clock that only runs. What a newer queen has besides is skipped.

        Until a new stream is complete, the board shows what it had before. Raises ValueError if `data` is no JSON.
        """
        self._heard_at = now
        if name == "hello":
            self.hello, self._hello_at, self._next, self.ready = LiveHello.model_validate_json(data), now, {}, False
        elif name == "ready":
            self._documents, self.ready, self.problem = self._next, True, ""
        elif name in SECTIONS:
            change = json.loads(data)
            self.put(name, change.get("set", {}), change.get("gone", ()))

    def put(self, name: str, documents: dict[str, Any], gone: Sequence[str] = ()) -> None:
        """Add or replace documents of a section, and remove those that are `gone`."""
        section = self._next.setdefault(name, {})
        for key in gone:
            section.pop(key, None)
        for key, document in documents.items():
            if key in section or len(section) < ELEMENTS:
                try:
                    section[key] = SECTIONS[name].model_validate(document)
                except ValidationError:  # of another release
                    section.pop(key, None)

    def situation(self, now: float) -> Situation:
        """Return what is known at `now`, on the clock of `apply`."""
        began = self.hello.at if self.hello else datetime.now(UTC)
        shown_at = self._heard_at if self.problem else now  # rates and waits of what was known last
        states = (TaskState.RUNNING, TaskState.QUEUED)
        return Situation(
            url=self.url,
            now=began + timedelta(seconds=shown_at - self._hello_at if self.hello else 0),
            hello=self.hello,
            summary=next(iter(self._all("queen", LiveSummary)), None),
            nodes=self._all("nodes", LiveNode),
            pools=self._all("pools", PoolStatus),
            gpus=self._all("gpus", GpuView),
            tasks=[task for task in self._all("tasks", TaskView) if task.state in states],
            problem=self.problem,
        )

    def _all(self, name: str, _model: type[T]) -> list[T]:
        return cast("list[T]", [*self._documents.get(name, {}).values()])
