"""orchctl logs: what the daemons of this machine have logged about a task, a pool or a node."""

import argparse

from orchctl.client import QueenClient
from orchctl.command import CliCommand, ListedValues, argument, identifier
from orchctl.output import print_progress, write, write_json
from orchctl.since import FOLLOW, SINCE


def journal_id(text: str) -> str:
    """An id that may stand in a journal field: one line of printable ASCII."""
    name = identifier(text)
    if not (name.isascii() and name.isprintable() and len(name) <= 256):
        raise argparse.ArgumentTypeError(f"invalid id: {text!r} (one line of at most 256 ASCII characters)")
    return name


async def logs(options: argparse.Namespace, queen: QueenClient) -> None:
    """Print the entries, oldest first. Raises CommandError."""
    from orchctl.journal import journalctl
    from orchctl.journal.subjects import ask_queen, identify, remarks, unknown

    await journalctl.check_readable()
    known = await ask_queen(queen, options.id)
    subject = identify(options.id, known)
    count = 0
    found = journalctl.Query(subject.matches, options.since, options.follow)
    # with --follow the command would wait for ever for an id that is mistyped
    if options.follow and not subject.known and not await journalctl.read(journalctl.Query(subject.matches, limit=1)):
        raise unknown(subject, known)
    async with journalctl.entries(found) as entries:
        if options.follow:
            for remark in remarks(subject, 1):
                print_progress(remark)
        async for entry in entries:
            count += 1
            if options.json:
                write_json(entry.document())
            else:
                write(f"{entry.line()}\n")
    if not count and not subject.known:
        raise unknown(subject, known)
    for remark in remarks(subject, count):
        print_progress(remark)


LOGS = CliCommand(
    "logs",
    "show what the daemons of this machine logged about a task, a pool or a node",
    logs,
    [
        argument(
            "id",
            type=journal_id,
            metavar="TASK|POOL|NODE",
            help="id of a task, pool or node, or the correlation id of a request",
            completion=ListedValues("pools"),
        ),
        FOLLOW,
        SINCE,
    ],
)
