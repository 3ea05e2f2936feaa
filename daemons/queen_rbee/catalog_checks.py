"""The checks of digests that are under way: children of `run`, one after the other; each can be stopped."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import trio

from llama_orch.contracts.catalog import CatalogModel
from llama_orch.contracts.pools import PoolStatus
from queen_rbee.catalog.verification import Outcome, check

Done = Callable[[CatalogModel, Outcome], None]


class Checks:
    """`model` finds a model by its id, `pools` tells what is known of pools, `done` takes the outcome; files of models
    are below `directories`."""

    def __init__(
        self,
        model: Callable[[str], CatalogModel | None],
        pools: Callable[[], Collection[PoolStatus]],
        done: Done,
        directories: Sequence[Path],
    ) -> None:
        self._directories = directories
        self._model = model
        self._pools = pools
        self._done = done
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._one_at_a_time = trio.CapacityLimiter(1)

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._scopes

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the checks, for ever."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def start(self, model_id: str) -> None:
        """Begin a check, unless one is under way, or nothing runs yet."""
        if self._nursery and model_id not in self._scopes:
            self._scopes[model_id] = trio.CancelScope()
            self._nursery.start_soon(self._check, model_id, self._scopes[model_id])

    def stop(self, model_id: str) -> None:
        """The model is checked no more."""
        if scope := self._scopes.pop(model_id, None):
            scope.cancel()

    async def _check(self, model_id: str, scope: trio.CancelScope) -> None:
        with scope:
            async with self._one_at_a_time:
                # whoever got the turn in the moment in which its check was stopped is not interrupted before it waits
                model = self._model(model_id)
                outcome = await check(model, self._pools, self._directories) if model else None
            if outcome and self._scopes.get(model_id) is scope and (model := self._model(model_id)):
                del self._scopes[model_id]
                self._done(model, outcome)
