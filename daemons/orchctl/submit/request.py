"""The body of POST /v2/tasks, from the options and texts of the command line.

Each field of TaskRequest has an option. An option whose value is sent unchanged has the field's name as destination.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from llama_orch.contracts.engines import engine_kinds
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.service.exit import ExitStatus
from orchctl.command import argument, finite_number, identifier
from orchctl.commands.models import MODEL_NAMES
from orchctl.commands.pools import POOL_IDS
from orchctl.commands.sessions import SESSION_IDS
from orchctl.errors import CommandError
from orchctl.stdin import read_stdin

FROM_STDIN: tuple[list[str], ...] = ([], ["-"])


@dataclass(frozen=True)
class TaskInput:
    """The texts of a task: a completion has a prompt, an embedding has inputs, a rerank has a query and inputs."""

    prompt: str | None = None
    inputs: Sequence[str] | None = None


def task_input(workload: str | None, texts: list[str]) -> TaskInput:
    """Take the texts of the command line or read standard input. Raises CommandError if they do not fit `workload`."""
    if workload == "embedding":
        return TaskInput(inputs=_each_text(texts))
    if workload == "rerank":
        if texts in FROM_STDIN:
            hint = "Usage: orchctl submit --workload rerank QUERY [DOCUMENT ...]"
            raise CommandError("a rerank requires a query", hint, ExitStatus.USAGE)
        return TaskInput(texts[0], _each_text(texts[1:]))
    if len(texts) > 1:
        raise CommandError("a completion takes one prompt", 'Quote it: orchctl submit "...".', ExitStatus.USAGE)
    return TaskInput(read_stdin() if texts in FROM_STDIN else texts[0])


def _each_text(texts: list[str]) -> list[str]:
    """Return `texts`, or the lines of standard input that are not blank."""
    return [line for line in read_stdin().split("\n") if line.strip()] if texts in FROM_STDIN else texts


def task_request(options: argparse.Namespace, texts: TaskInput) -> dict[str, object]:
    """Return the body of POST /v2/tasks, without the fields that were not given."""
    fields = {field: getattr(options, field, None) for field in TaskRequest.model_fields}
    fields |= {"placement": _placement(options), "prompt": texts.prompt, "inputs": texts.inputs}
    return {name: value for name, value in fields.items() if value is not None}


def _placement(options: argparse.Namespace) -> dict[str, object] | None:
    placement: dict[str, object] = {}
    if options.prefer_pool:
        placement |= {"mode": "prefer", "prefer_pools": options.prefer_pool}
    if options.pool:
        placement |= {"mode": "pin", "pin_pool_id": options.pool}
    if options.avoid_pool:
        placement["avoid_pools"] = options.avoid_pool
    if options.device_mask:
        placement["require_device_mask"] = options.device_mask
    if options.no_fallback:
        placement["allow_fallback"] = False
    return placement or None


TASK_ARGUMENTS = [
    argument("text", nargs="*", help="prompt, or the texts of an embedding; - reads standard input"),
    argument("--workload", choices=["completion", "embedding", "rerank"], help="what to compute (default: completion)"),
    argument("--model", dest="model_ref", help="model to use (default: any)", completion=MODEL_NAMES),
    argument("--engine", choices=engine_kinds(), help="engine kind to use (default: any)"),
    argument(
        "--session",
        dest="session_id",
        metavar="UUID",
        type=identifier,
        help="session that the task is a turn of",
        completion=SESSION_IDS,
    ),
    argument("--priority", choices=["interactive", "batch"], default="interactive"),
    argument("--deadline-ms", type=int, metavar="MS", help="time limit in milliseconds, including queueing"),
    argument(
        "--wait",
        dest="wait_s",
        type=int,
        metavar="SECONDS",
        help="how long the task may wait until it starts; 0: do not wait for a load of its model",
    ),
    argument("--task-id", metavar="UUID", type=identifier, help="id of the task (default: a new one)"),
]

PLACEMENT_ARGUMENTS = [
    argument("--pool", type=identifier, help="run only on this pool", completion=POOL_IDS),
    argument(
        "--prefer-pool", action="append", metavar="POOL", help="prefer this pool; repeatable", completion=POOL_IDS
    ),
    argument(
        "--avoid-pool", action="append", metavar="POOL", help="do not run on this pool; repeatable", completion=POOL_IDS
    ),
    argument("--device-mask", metavar="MASK", help="run on a pool with exactly these GPUs, such as 0,1, or on cpu"),
    argument("--no-fallback", action="store_true", help="fail if no preferred pool can run the task"),
    argument("--keep-alive", metavar="TIME", help="how long the model stays loaded afterwards: 5m, 90, 0, or -1"),
    argument("--kv-hint", choices=["reuse", "cold"], help="whether to look for the session's KV cache"),
]

GENERATION_ARGUMENTS = [
    argument("--ctx", type=int, metavar="N", help="context that the task needs, in tokens"),
    argument("--max-tokens", type=int, metavar="N", help="maximum length of the answer, in tokens"),
    argument("--expected-tokens", type=int, metavar="N", help="expected length of the answer, to predict its time"),
    argument("--seed", type=int, metavar="N", help="seed of the sampling: the same seed gives the same text"),
    argument("--top-k", type=int, metavar="N"),
    argument("--determinism", choices=["strict", "best_effort"], help="how strictly the seed must be honoured"),
    argument("--temperature", type=finite_number, metavar="X"),
    argument("--top-p", type=finite_number, metavar="X"),
    argument("--min-p", type=finite_number, metavar="X"),
    argument("--repeat-penalty", type=finite_number, metavar="X"),
    argument("--stop", action="append", metavar="TEXT", help="stop the answer at this text; repeatable"),
    argument("--output-mode", choices=["text", "json", "edits"], help="output format, a hint for the engine"),
]
