"""orchctl's entry: runs one command and turns what goes wrong into words and an exit status."""

import argparse
import signal
import sys
from functools import partial

import trio

from orchctl import tables
from orchctl.arguments import parser, task_of
from orchctl.queen import Failure, Queen, from_environment
from orchctl.submit import Display, follow, hand_in

INTERRUPTED = 128 + signal.SIGINT


def main(arguments: list[str] | None = None) -> int:
    """Run orchctl; the exit status is one of sysexits(3), or 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        trio.run(partial(_run, options, from_environment(options.url)))
    except Failure as failure:
        print(f"orchctl: {failure.message}", file=sys.stderr)
        if failure.hint:
            print(f"orchctl: {failure.hint}", file=sys.stderr)
        return failure.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 128 + signal.SIGPIPE
    return 0


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
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    accepted = await hand_in(queen, task_of(options, prompt))
    if options.detach:
        print(accepted.model_dump_json() if options.json else accepted.task_id)
        return
    await follow(queen, accepted, Display(options.json, options.quiet))


if __name__ == "__main__":
    sys.exit(main())
