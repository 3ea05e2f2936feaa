"""The queue position of a chat request. Its own response cannot carry it, so the task list is polled beside it."""

from collections.abc import Callable

import trio

from llama_orch.contracts.tasks import TaskList
from orchctl.client import QueenClient, build_path, parse_response
from orchctl.errors import CommandError
from orchctl.output import StatusLine
from orchctl.tables import queue_position

FIRST_POLL_S = 0.5
"""Delay of the first poll; most answers start earlier."""
POLL_S = 2.0
PATH = build_path("/v2/tasks", state="queued", limit=500)


async def show_queue_position(
    queen: QueenClient, request_id: str, line: StatusLine, waiting: Callable[[], bool]
) -> None:
    """Keep `line` at the queue position of the task with this correlation id while `waiting` returns true."""
    if not line.enabled:
        return
    await trio.sleep(FIRST_POLL_S)
    while waiting():
        text = await _poll(queen, request_id)
        if text and waiting():  # the answer may have started during the poll
            line.show(text)
        await trio.sleep(POLL_S)


async def _poll(queen: QueenClient, request_id: str) -> str | None:
    try:
        tasks = parse_response(TaskList, await queen.get(PATH)).tasks
    except CommandError:  # the chat request itself will report the error
        return None
    queued = (task for task in tasks if task.correlation_id == request_id and task.queue_position is not None)
    task = next(queued, None)
    return queue_position(task.queue_position or 0, task.predicted_start_ms) if task else "waiting for the answer"
