"""orchctl submit: hands in a task, shows its tokens as they come, and cancels it when interrupted."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import trio

from llama_orch.contracts.tasks import TaskAccepted
from llama_orch.http.client import UpstreamError
from llama_orch.http.sse import MalformedStream, ServerSentEvent, read_events
from llama_orch.service.exit import ExitStatus
from orchctl.queen import Failure, Queen, understood

RECONNECTS = 20
RECONNECT_S = 0.5
IDLE_S = 45.0
CANCEL_LIMIT_S = 5.0


@dataclass
class Display:
    """Where what arrives is shown: tokens on stdout, the rest on stderr for a person; or each event as a JSON line."""

    as_json: bool
    quiet: bool = False
    tokens: int = 0

    def event(self, event: ServerSentEvent) -> None:
        """Show one event of the stream."""
        data: dict[str, Any] = json.loads(event.data)
        if self.as_json:
            print(json.dumps({"event": event.name, **data}, ensure_ascii=False), flush=True)
        elif event.name == "token":
            sys.stdout.write(str(data.get("t", "")))
            sys.stdout.flush()
            self.tokens += 1
        elif event.name == "started":
            self.waiting(data)

    def waiting(self, data: dict[str, Any]) -> None:
        """Tell a person who waits where the task stands."""
        position = int(data.get("queue_position", 0))
        if position or data.get("predicted_start_ms"):
            seconds = max(1, round(int(data.get("predicted_start_ms", 0)) / 1000))
            self.note(f"{ordinal(position + 1)} in the queue, about {seconds} s")

    def note(self, text: str) -> None:
        """A word to the person at the terminal, never into a pipe."""
        if not self.quiet and sys.stderr.isatty():
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
            return understood(TaskAccepted, await response.read())
    except UpstreamError as error:
        raise queen.unreachable(error) from error


async def follow(queen: Queen, accepted: TaskAccepted, display: Display) -> None:
    """Show the task's events to the end, resuming where a connection breaks. Raises Failure when the task fails.

    When this is cancelled (Ctrl-C) the task is cancelled too: nobody is left to read it.
    """
    finished = False
    try:
        last = await _read(queen, accepted, display)
        finished = True
    finally:
        display.end()
        if not finished:
            with trio.CancelScope(shield=True), trio.move_on_after(CANCEL_LIMIT_S):
                await cancel(queen, str(accepted.task_id))
    if last.name == "error":
        raise _failed(json.loads(last.data))


async def _read(queen: Queen, accepted: TaskAccepted, display: Display) -> ServerSentEvent:
    """Read until the terminal event, which is returned."""
    last_id, left = "", RECONNECTS
    while True:
        try:
            async with queen.ask("GET", accepted.streams.sse, headers={"last-event-id": last_id}) as response:
                async for event in read_events(response.chunks()):
                    display.event(event)
                    last_id, left = event.id, RECONNECTS
                    if event.name in ("end", "error"):
                        return event
        except (UpstreamError, MalformedStream) as error:
            left -= 1
            if not left:
                message = f"the stream of task {accepted.task_id} broke off: {error}"
                raise Failure(message, "See orchctl status.", ExitStatus.UNAVAILABLE) from error
            await trio.sleep(RECONNECT_S)


async def cancel(queen: Queen, task_id: str) -> None:
    """Cancel a task; that nobody answers is no error here: then it has gone with the queen."""
    try:
        async with queen.ask("POST", f"/v2/tasks/{task_id}/cancel"):
            pass
    except (UpstreamError, Failure):
        return


def _failed(error: dict[str, Any]) -> Failure:
    status = ExitStatus.TEMPORARY if error.get("retriable") else ExitStatus.SOFTWARE
    hint = "It may be submitted again." if error.get("retriable") else ""
    return Failure(f"the task failed: {error.get('code')}: {error.get('message')}", hint, status)
