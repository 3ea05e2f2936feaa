"""orchctl submit: hands in a task, shows its tokens as they come, and cancels it when interrupted."""

import json
import sys
from dataclasses import dataclass

import trio
from pydantic import BaseModel, ConfigDict

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.tasks import TaskAccepted
from llama_orch.http.client import UpstreamError
from llama_orch.http.sse import ServerSentEvent
from llama_orch.service.exit import ExitStatus
from orchctl.events import read_to_end
from orchctl.queen import LIMIT_S, Failure, Queen, later, understood

CANCEL_LIMIT_S = 5.0


class Anything(BaseModel):
    """The data of any event: a JSON object."""

    model_config = ConfigDict(extra="allow")


class Token(Outbound):
    """The data of a `token` event."""

    t: str


class Started(Outbound):
    """The data of a `started` event."""

    queue_position: int = 0
    predicted_start_ms: int = 0


class TaskFailure(Outbound):
    """The data of an `error` event; codes of a newer queen are shown as they are."""

    code: str
    message: str
    retriable: bool = False
    retry_after_ms: int | None = None


@dataclass
class Display:
    """Where what arrives is shown: tokens on stdout, the rest on stderr for a person; or each event as a JSON line."""

    as_json: bool
    quiet: bool = False
    tokens: int = 0

    def event(self, event: ServerSentEvent) -> None:
        """Show one event of the stream."""
        if self.as_json:
            data = understood(Anything, event.data.encode()).model_extra or {}
            print(json.dumps({"event": event.name, **data}, ensure_ascii=False), flush=True)
        elif event.name == "token":
            self.tokens += 1
            print(understood(Token, event.data.encode()).t, end="", flush=True)
        elif event.name == "started":
            self.waiting(understood(Started, event.data.encode()))

    def waiting(self, started: Started) -> None:
        """Tell a person who waits where the task stands."""
        if started.queue_position or started.predicted_start_ms:
            seconds = max(1, round(started.predicted_start_ms / 1000))
            self.note(f"{ordinal(started.queue_position + 1)} in the queue, about {seconds} s")

    def note(self, text: str) -> None:
        """A word to the person at the terminal, never into a pipe."""
        if not self.quiet and sys.stderr and sys.stderr.isatty():
            print(f"orchctl: {text}", file=sys.stderr)

    def end(self) -> None:
        """Leave the terminal on a new line."""
        if not self.as_json and self.tokens:
            print(flush=True)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    last = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else last}"


async def hand_in(queen: Queen, body: dict[str, object]) -> TaskAccepted:
    """POST the task. Raises Failure."""
    try:
        async with queen.ask("POST", "/v2/tasks", json.dumps(body).encode()) as response:
            return understood(TaskAccepted, await response.read(limit_s=LIMIT_S))
    except UpstreamError as error:
        raise queen.unreachable(error) from error


async def follow(queen: Queen, accepted: TaskAccepted, display: Display) -> None:
    """Show the task's events to the end, resuming where a connection breaks. Raises Failure when the task fails.

    Where this ends before the task does (Ctrl-C, a closed pipe) the task is cancelled: nobody is left to read it.
    """
    try:
        last = await read_to_end(queen, accepted, display.event)
    except BaseException:
        with trio.CancelScope(shield=True), trio.move_on_after(CANCEL_LIMIT_S):
            await cancel(queen, str(accepted.task_id))
        raise
    finally:
        display.end()
    if last.name == "error":
        raise _failed(understood(TaskFailure, last.data.encode()))


async def cancel(queen: Queen, task_id: str) -> None:
    """Cancel a task; that nobody answers is no error here: then it has gone with the queen."""
    try:
        async with queen.ask("POST", f"/v2/tasks/{task_id}/cancel"):
            pass
    except (UpstreamError, Failure):
        return


def _failed(error: TaskFailure) -> Failure:
    status = ExitStatus.TEMPORARY if error.retriable else ExitStatus.SOFTWARE
    hint = "It may be submitted again." if error.retriable else ""
    hint = f"{hint} {later(error.retry_after_ms)}".strip()
    return Failure(f"the task failed: {error.code}: {error.message}", hint, status)
