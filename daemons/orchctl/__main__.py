"""orchctl's entry: runs one command and turns what goes wrong into words and an exit status."""

import argparse
import io
import os
import signal
import sys
from contextlib import suppress
from functools import partial

import trio

from llama_orch.service.exit import ExitStatus
from orchctl import tables
from orchctl.arguments import parser, task_of
from orchctl.queen import Failure, Queen, from_environment
from orchctl.submit import Display, follow, hand_in

INTERRUPTED = 128 + signal.SIGINT


def main(arguments: list[str] | None = None) -> int:
    """Run orchctl; the exit status is one of sysexits(3), or 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model may say what the terminal's encoding cannot
    try:
        trio.run(partial(_run, options, from_environment(options.url)))
        print(end="", flush=True)
    except Failure as failure:
        return _explain(failure)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough
        _forget_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        _forget_output()
        return _explain(Failure(f"the output cannot be written: {error.strerror}", "", ExitStatus.IO_ERROR))
    return 0


def _explain(failure: Failure) -> int:
    for line in filter(None, (failure.message, failure.hint)):
        print(f"orchctl: {line}", file=sys.stderr)
    return failure.status


def _forget_output() -> None:
    """Give up what is still buffered for stdout, or Python complains about it at its exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _run(options: argparse.Namespace, queen: Queen) -> None:
    if options.command == "submit":
        await _submit(options, queen)
    elif options.command == "pools":
        body, text = await tables.pools(queen)
        print(body.decode() if options.json else text)
    else:
        found, text = await tables.status(queen)
        print(found if options.json else text)


async def _submit(options: argparse.Namespace, queen: Queen) -> None:
    accepted = await hand_in(queen, task_of(options, _prompt(options.prompt)))
    if options.detach:
        print(accepted.model_dump_json() if options.json else accepted.task_id)
        return
    await follow(queen, accepted, Display(options.json, options.quiet))


def _prompt(given: str) -> str:
    if given != "-":
        return given
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise Failure(
            "the prompt on standard input is not text", f"It must be {error.encoding}.", ExitStatus.DATA
        ) from error


if __name__ == "__main__":
    sys.exit(main())
