"""orchctl's command line: commands, options, and the request that `submit` makes of them."""

import argparse

from llama_orch import VERSION
from llama_orch.service.command_line import Parser


def parser() -> Parser:
    """The parser of the whole command line."""
    top = Parser("orchctl", description="The command line client of llama-orch, see orchctl(1).")
    top.add_argument("--version", action="version", version=f"orchctl (llama-orch) {VERSION}")
    common = Parser(add_help=False)
    common.add_argument("--url", help="queen-rbee's URL (default: $ORCHESTRATORD_URL or http://127.0.0.1:8080)")
    common.add_argument("--json", action="store_true", help="print JSON, for scripts")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    commands.add_parser("status", parents=[common], help="the queen, its tasks and its pools")
    commands.add_parser("pools", parents=[common], help="the pools and how they are")
    _submit(commands.add_parser("submit", parents=[common], help="run a task and show its tokens as they come"))
    return top


def _submit(command: Parser) -> None:
    command.add_argument("prompt", nargs="?", default="-", help="the prompt; - or nothing reads standard input")
    command.add_argument("--model", help="model to use (default: any)")
    command.add_argument("--engine", choices=["llamacpp", "vllm", "tgi", "triton"], help="engine to use")
    command.add_argument("--pool", help="run on this pool and nowhere else")
    command.add_argument("--max-tokens", type=int, help="length of the answer at most, in tokens")
    command.add_argument("--priority", choices=["interactive", "batch"], default="interactive")
    command.add_argument("--deadline-ms", type=int, help="give up after so many milliseconds")
    command.add_argument("--seed", type=int, help="same seed, same text")
    command.add_argument("--temperature", type=float)
    command.add_argument("--top-p", type=float)
    command.add_argument("--stop", action="append", help="end the answer at this text; may be given several times")
    command.add_argument("--detach", action="store_true", help="print the task's id and do not wait")
    command.add_argument("--quiet", action="store_true", help="no word about waiting")


def task_of(options: argparse.Namespace, prompt: str) -> dict[str, object]:
    """The body of POST /v2/tasks; what was not given is left out."""
    wanted: dict[str, object] = {
        "prompt": prompt,
        "model_ref": options.model,
        "engine": options.engine,
        "max_tokens": options.max_tokens,
        "priority": options.priority,
        "deadline_ms": options.deadline_ms,
        "seed": options.seed,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "stop": options.stop,
        "placement": {"mode": "pin", "pin_pool_id": options.pool} if options.pool else None,
    }
    return {name: value for name, value in wanted.items() if value is not None}
