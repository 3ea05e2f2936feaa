"""orchctl events: the events of queen-rbee, or those of all daemons in the journal of this machine."""

import argparse
from typing import TYPE_CHECKING

from orchctl.client import QueenClient
from orchctl.command import CliCommand, argument
from orchctl.output import write, write_json
from orchctl.since import FOLLOW, SINCE

if TYPE_CHECKING:
    from llama_orch.contracts.live import LiveJournalEntry
    from orchctl.journal.entries import Entry

DAEMONS = ("queen-rbee", "pool-managerd", "engine-provisioner")


async def show_events(options: argparse.Namespace, queen: QueenClient) -> None:
    """Print a line for each event, oldest first. Raises CommandError."""
    if options.journal:
        await _from_journal(options)
    else:
        await _from_queen(options, queen)


async def _from_queen(options: argparse.Namespace, queen: QueenClient) -> None:
    from orchctl.events.stream import EventStream
    from orchctl.journal.entries import local_time
    from orchctl.tables import one_line

    def show(entry: "LiveJournalEntry") -> None:
        if options.json:
            write_json({"daemon": "queen-rbee", **entry.model_dump(mode="json")})
        else:
            write(f"{local_time(entry.at)} {_level(entry.level)}{entry.event}: {one_line(entry.text)}\n")

    await EventStream(queen, show, options.since, options.follow).run()


async def _from_journal(options: argparse.Namespace) -> None:
    from orchctl.journal import journalctl
    from orchctl.journal.entries import local_time
    from orchctl.tables import one_line

    def show(entry: "Entry") -> None:
        if options.json:
            document = entry.document()
            write_json({**document, "text": document.pop("message")})
        else:
            text = f"{_level(entry.level)}{entry.event}: {one_line(entry.message)}"
            write(f"{local_time(entry.at)} {entry.daemon}: {text}\n")

    await journalctl.check_readable()
    matches = [(f"SYSLOG_IDENTIFIER={daemon}",) for daemon in DAEMONS]
    async with journalctl.entries(journalctl.Query(matches, options.since, options.follow)) as entries:
        async for entry in entries:
            if entry.event:
                show(entry)


def _level(level: str) -> str:
    """Return the level before an event, if it says more than that it happened."""
    return f"{level}: " if level not in ("info", "debug", "notice") else ""


EVENTS = CliCommand(
    "events",
    "show the last events of queen-rbee, and with --follow those that come",
    show_events,
    [
        FOLLOW,
        SINCE,
        argument(
            "--journal",
            action="store_true",
            help="read the journal of this machine instead: the events of all its daemons, also old ones",
        ),
    ],
)
