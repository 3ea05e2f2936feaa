"""Everything that is only looked at: tasks, pools, versions."""

from collections.abc import Callable
from functools import partial

import trio
from quart import Response, request
from quart_trio import QuartTrio

from llama_orch import VERSION
from llama_orch.contracts.base import Outbound
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.meta import Version
from llama_orch.contracts.pools import PoolFigures, PoolHealth, PoolList
from llama_orch.contracts.tasks import TaskState, TaskView
from llama_orch.engines.wire.adapters import adapters
from queen_rbee.api.paging import wanted_page
from queen_rbee.api.tasks import TaskListing
from queen_rbee.intake.intake import Intake, task_id_of, unknown_task
from queen_rbee.pools.candidates import public_pool
from queen_rbee.pools.capabilities import API_VERSION
from queen_rbee.pools.capabilities import capabilities as known_capabilities
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.sources.handoffs import HandoffSource
from queen_rbee.store.protocol import Store
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.task import Task

ONE_AT_A_TIME = trio.CapacityLimiter(1)
"""Of long lists: each takes the interpreter from the loop, and whoever asks for many must not take it all."""


def add_views(app: QuartTrio, book: TaskBook, registry: PoolRegistry, intake: Intake, store: Store) -> None:
    """Add the routes to `app`; `store` has the records of tasks that ended long ago, or before a restart."""
    listing = TaskListing(book, store, partial(_view, intake))

    @app.get("/v2/tasks")
    async def tasks() -> Response:
        state = request.args.get("state")
        page = wanted_page(_wrong_state(state))
        return answer(await listing.page(TaskState(state) if state else None, page))

    @app.get("/v2/tasks/<task_id>")
    async def task(task_id: str) -> Response:
        identifier = task_id_of(task_id)
        if found := book.get(identifier):
            return answer(_view(intake, found))
        if record := await store.get("record", str(identifier)):
            return Response(record.body, content_type="application/json")
        raise unknown_task(task_id)

    @app.get("/v2/pools")
    async def pools() -> Response:
        known = registry.pools()
        return await answer_of(lambda: PoolList(pools=[*map(public_pool, known)], count=len(known)))

    @app.get("/v2/pools/<pool_id>/health")
    async def pool_health(pool_id: str) -> Response:
        return answer(_health(registry, pool_id))

    @app.get("/v2/meta/version")
    async def version() -> Response:
        return answer(Version(version=VERSION, api_version=API_VERSION))

    @app.get("/v2/meta/capabilities")
    async def capabilities() -> Response:
        known = registry.pools()
        return await answer_of(lambda: known_capabilities(known, adapters()))


def answer(value: Outbound, status: int = 200) -> Response:
    """`value` as a JSON response."""
    return Response(value.model_dump_json(), status=status, content_type="application/json")


async def answer_of(made: Callable[[], Outbound]) -> Response:
    """What `made` gives as a JSON response, made beside the loop: thousands of pools take 0.3 s, and heartbeats and
    streams must not wait for whoever asks for them."""
    text = await trio.to_thread.run_sync(lambda: made().model_dump_json(), limiter=ONE_AT_A_TIME)
    return Response(text, content_type="application/json")


def _view(intake: Intake, task: Task) -> TaskView:
    if task.state is TaskState.QUEUED:
        return task.view(*intake.position(task))
    return task.view()


def _wrong_state(state: str | None) -> list[tuple[str, str]]:
    known = state is None or state in set(TaskState)
    return [] if known else [("state", f"must be one of {', '.join(TaskState)}")]


def _health(registry: PoolRegistry, pool_id: str) -> PoolHealth:
    for pool in registry.pools_named(pool_id):
        known = pool.model_dump()
        return PoolHealth(**known, metrics=PoolFigures(**known))
    message = f"there is no pool {pool_id[:64]}"
    raise ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message=message, hint="See GET /v2/pools."))


def add_scan(app: QuartTrio, handoffs: HandoffSource | None) -> None:
    """Add the route; without a handoff directory (CLOUD_PROFILE) it has nothing to do and says so by 204 too."""

    @app.post("/v2/handoff/scan")
    async def scan() -> Response:
        if handoffs:
            await handoffs.scan()
        return Response("", status=204)  # without a body, Quart looks for an asyncio loop
