"""orchctl sessions: what lives, one of them, its limits, its end."""

import argparse
from collections.abc import Sequence

from llama_orch.contracts.sessions import SessionList, SessionView
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, below
from orchctl.command import Commands, identifier, number, paged
from orchctl.errors import CommandError
from orchctl.output import show
from orchctl.paging import show_pages
from orchctl.tables import cell, duration, one_line, table, whole, yes

PATH = "/v2/sessions"
HEADER = ("SESSION", "LIVES", "TURNS", "POOL", "WARM", "TOKENS LEFT", "TIME LEFT", "COST LEFT")
LIMITS = ("ttl_ms", "max_turns", "tokens_budget", "time_budget_ms", "cost_budget")


def add(commands: Commands) -> None:
    """Add the command `sessions`."""
    command = commands.add("sessions", sessions, "the sessions; show, limit or end one")
    command.add_argument("id", nargs="?", type=identifier, metavar="ID", help="the session, a UUID")
    paged(command)
    command.add_argument("--delete", action="store_true", help="end it")
    command.add_argument("--ttl-ms", type=int, metavar="MS", help="end it when so long no turn comes")
    command.add_argument("--max-turns", type=int, metavar="N", help="how many turns it may have")
    command.add_argument("--tokens-budget", type=int, metavar="N", help="tokens that it may use in its life")
    command.add_argument("--time-budget-ms", type=int, metavar="MS", help="engine time that it may use in its life")
    command.add_argument("--cost-budget", type=number, metavar="X", help="cost that it may run up in its life")


async def sessions(options: argparse.Namespace, queen: QueenClient) -> None:
    """List sessions, or show, change or end one. Raises CommandError."""
    change = {name: value for name in LIMITS if (value := getattr(options, name)) is not None}
    _sensible(options, change)
    if options.id is None:
        await show_pages(queen, PATH, options, SessionList, sessions_text)
    elif options.delete:
        await queen.bid("DELETE", below(PATH, options.id))
    else:
        ask = ("PUT", below(PATH, options.id), change) if change else ("GET", below(PATH, options.id), None)
        show(options.json, await queen.call(*ask), SessionView, whole)


def _sensible(options: argparse.Namespace, change: dict[str, object]) -> None:
    hint = "See orchctl sessions --help."
    if options.id is None and (options.delete or change):
        raise CommandError("which session is meant?", f"Give its id. {hint}", ExitStatus.USAGE)
    if options.delete and change:
        raise CommandError("a session that ends needs no limits", hint, ExitStatus.USAGE)


def sessions_text(found: Sequence[SessionList]) -> str:
    """One line a session; a dash where no budget is set."""
    rows = [_row(session) for page in found for session in page.sessions]
    return table([HEADER, *rows]) if rows else "there are no sessions"


def _row(session: SessionView) -> tuple[str, ...]:
    time_ms = session.time_budget_remaining_ms
    return (
        str(session.session_id),
        duration(session.ttl_ms_remaining / 1000),
        f"{session.turns}/{session.turns + session.turns_remaining}",
        one_line(session.pool_id),
        yes(session.kv_warmth),
        cell(session.tokens_budget_remaining),
        one_line(None if time_ms is None else duration(time_ms / 1000)),
        cell(session.cost_budget_remaining),
    )
