"""From the command line to the body of POST /v2/tasks: each field of the contract has its option.

An option that is passed on as it is has the name of the field, here if not on the command line.
"""

import argparse
from typing import get_args

from llama_orch.contracts.engines import EngineKind
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.service.command_line import Parser
from orchctl.command import identifier, number
from orchctl.texts import TaskInput


def add_options(command: Parser) -> None:
    """The options that say what a task is and where it runs."""
    command.add_argument("text", nargs="*", help="the prompt, or each text of an embedding; - reads standard input")
    workloads = ["completion", "embedding", "rerank"]
    command.add_argument("--workload", choices=workloads, help="what is done with the text (default: completion)")
    command.add_argument("--model", dest="model_ref", help="model to use (default: any)")
    command.add_argument("--engine", choices=get_args(EngineKind), help="engine to use")
    session = "count as a turn of this session"
    command.add_argument("--session", dest="session_id", metavar="UUID", type=identifier, help=session)
    command.add_argument("--priority", choices=["interactive", "batch"], default="interactive")
    command.add_argument("--deadline-ms", type=int, metavar="MS", help="give up after so many milliseconds")
    command.add_argument("--task-id", metavar="UUID", type=identifier, help="id of the task (default: a new one)")
    _add_placement(command)
    _add_generation(command)


def _add_placement(command: Parser) -> None:
    command.add_argument("--pool", type=identifier, help="run on this pool and nowhere else")
    command.add_argument("--prefer-pool", action="append", metavar="POOL", help="rather run on this pool; repeatable")
    command.add_argument("--avoid-pool", action="append", metavar="POOL", help="do not run on this pool; repeatable")
    command.add_argument("--device-mask", metavar="MASK", help="run on exactly these GPUs, as in 0,1, or on cpu")
    command.add_argument("--no-fallback", action="store_true", help="fail where no preferred pool can take it")
    command.add_argument("--kv-hint", choices=["reuse", "cold"], help="whether to look for the session's KV cache")


def _add_generation(command: Parser) -> None:
    for name, words in (
        ("--ctx", "context that the task needs, in tokens"),
        ("--max-tokens", "length of the answer at most, in tokens"),
        ("--expected-tokens", "length that is expected, to predict times by"),
        ("--seed", "same seed, same text"),
        ("--top-k", None),
    ):
        command.add_argument(name, type=int, metavar="N", help=words)
    command.add_argument("--determinism", choices=["strict", "best_effort"], help="how much the seed has to count")
    for name in ("--temperature", "--top-p", "--min-p", "--repeat-penalty"):
        command.add_argument(name, type=number, metavar="X")
    command.add_argument("--stop", action="append", metavar="TEXT", help="end the answer at this text; repeatable")
    command.add_argument("--output-mode", choices=["text", "json", "edits"], help="a hint for the engine")


def task_of(options: argparse.Namespace, texts: TaskInput) -> dict[str, object]:
    """The body of POST /v2/tasks with `texts`; what was not given is left out."""
    wanted = {field: getattr(options, field, None) for field in TaskRequest.model_fields}
    wanted |= {"placement": _placement(options), "prompt": texts.prompt, "inputs": texts.inputs}
    return {name: value for name, value in wanted.items() if value is not None}


def _placement(options: argparse.Namespace) -> dict[str, object] | None:
    wish: dict[str, object] = {}
    if options.prefer_pool:
        wish |= {"mode": "prefer", "prefer_pools": options.prefer_pool}
    if options.pool:
        wish |= {"mode": "pin", "pin_pool_id": options.pool}
    if options.avoid_pool:
        wish["avoid_pools"] = options.avoid_pool
    if options.device_mask:
        wish["require_device_mask"] = options.device_mask
    if options.no_fallback:
        wish["allow_fallback"] = False
    return wish or None
