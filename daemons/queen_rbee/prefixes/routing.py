"""Send tasks where their prompt's beginning was computed before, so that the engine need not compute it again."""

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Candidate, ReplicaKey
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.prefixes.blocks import Prompt, prompt_of
from queen_rbee.prefixes.choice import best_match
from queen_rbee.prefixes.index import Matches, PrefixIndex
from queen_rbee.tasks.task import Task

WORTHWHILE = 1000
"""Characters of the shortest prompt whose place matters: an engine computes it in a hundredth of a second."""


@dataclass(frozen=True)
class Route:
    """What is known of a prompt, and the replica to prefer, if any."""

    prompt: Prompt
    matches: Matches
    replica: ReplicaKey | None


class PrefixRouting:
    """Owns the index of prompts. Costs nothing while only one replica can serve a task."""

    def __init__(self, registry: PoolRegistry, metrics: Metrics, *, enabled: bool = True) -> None:
        self._index = PrefixIndex()
        self._metrics = metrics
        self._enabled = enabled
        registry.on_ready.append(self._index.forget)

    def route(self, task: Task, suitable: Sequence[Candidate]) -> Route | None:
        """Return the route of a task that one of `suitable` is to take; None if its prompt does not matter."""
        if not self._enabled or len(suitable) < 2 or task.request.kv_hint == "cold":
            return None
        prompt = prompt_of(task.request, task.passage)
        if prompt.length < WORTHWHILE and prompt.hint is None:
            return None
        matches = self._index.matches(prompt, trio.current_time())
        return Route(prompt, matches, best_match(suitable, matches, prompt.length, self._index.conversations))

    def record(self, route: Route, placed_on: ReplicaKey) -> None:
        """Note where the task of `route` was placed."""
        known = route.matches.lengths
        result = "match" if placed_on in known else "busy" if known else "none"
        self._metrics.prefixes.labels(result).inc()
        self._index.record(route.prompt, placed_on, trio.current_time())
