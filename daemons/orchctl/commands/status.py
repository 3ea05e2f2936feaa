"""orchctl status: version, readiness, open tasks and pools."""

import argparse

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.meta import Readiness, Version
from llama_orch.contracts.pools import PoolList, PoolStatus
from orchctl.client import QueenClient, parse_response
from orchctl.command import CliCommand
from orchctl.commands.pools import format_pools
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.paging import PageRange, fetch_pages


class Status(Outbound):
    """The output of `orchctl status --json`; `tasks` counts the open tasks by state."""

    url: str
    version: Version
    ready: Readiness
    tasks: dict[str, int]
    pools: list[PoolStatus]


class TaskCount(Outbound):
    """The part of a list of tasks that is needed: building the models of all of it takes as long as the requests."""

    count: int


async def show_status(options: argparse.Namespace, queen: QueenClient) -> None:
    status = Status(
        url=queen.url,
        version=parse_response(Version, await queen.get("/v2/meta/version")),
        ready=parse_response(Readiness, await queen.call("GET", "/ready", allowed=(503,))),
        tasks={state: await _count_tasks(queen, state) for state in ("queued", "running")},
        pools=parse_response(PoolList, await queen.get("/v2/pools")).pools,
    )
    print_one(
        options,
        status.model_dump_json().encode(),
        Status,
        _format,
        lambda shown: [each.pool_id for each in shown.pools],
    )


def _format(status: Status) -> str:
    return f"{_summary(status)}\n\n{format_pools(status.pools)}"


def _summary(status: Status) -> str:
    tasks = ", ".join(f"{count} {state}" for state, count in status.tasks.items())
    readiness = "ready" if status.ready.ready else f"not ready ({'; '.join(status.ready.reasons)})"
    return f"queen-rbee {status.version.version} at {status.url}: {readiness}, {tasks}"


async def _count_tasks(queen: QueenClient, state: str) -> int:
    bodies = await fetch_pages(queen, "/v2/tasks", PageRange(all_pages=True), state=state)
    return sum(parse_response(TaskCount, body).count for body in bodies)


STATUS = CliCommand("status", "show the queen, its tasks and its pools", show_status, LIST_ARGUMENTS)
