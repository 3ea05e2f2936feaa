"""orchctl sessions: list sessions, show one, set its limits, or end it."""

import argparse
from collections.abc import Iterator, Sequence

from llama_orch.contracts.sessions import SessionList, SessionView
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, build_path
from orchctl.command import PAGE_ARGUMENTS, CliCommand, ListedValues, argument, finite_number, identifier
from orchctl.errors import CommandError
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.paging import print_pages
from orchctl.tables import duration, format_record, format_table, one_line, optional, yes_no

PATH = "/v2/sessions"
SESSION_IDS = ListedValues("sessions")
HEADER = ("SESSION", "LIVES", "TURNS", "POOL", "WARM", "TOKENS LEFT", "TIME LEFT", "COST LEFT")
LIMITS = ("ttl_ms", "max_turns", "tokens_budget", "time_budget_ms", "cost_budget")


async def sessions(options: argparse.Namespace, queen: QueenClient) -> None:
    """List sessions, or show, change or end one. Raises CommandError."""
    limits = {name: value for name in LIMITS if (value := getattr(options, name)) is not None}
    _check_combination(options, limits)
    if options.id is None:
        await print_pages(queen, PATH, options, SessionList, format_sessions, session_ids)
        return
    path = build_path(PATH, options.id)
    if options.delete:
        await queen.command("DELETE", path)
    else:
        body = await queen.call("PUT", path, limits) if limits else await queen.get(path)
        print_one(options, body, SessionView, format_record, lambda one: [str(one.session_id)])


def _check_combination(options: argparse.Namespace, limits: dict[str, object]) -> None:
    hint = "See orchctl sessions --help."
    if options.id is None and (options.delete or limits):
        raise CommandError("--delete and limits require a session id", hint, ExitStatus.USAGE)
    if options.delete and limits:
        raise CommandError("--delete cannot be combined with limits", hint, ExitStatus.USAGE)


def session_ids(page: SessionList) -> Iterator[str]:
    return (str(session.session_id) for session in page.sessions)


def format_sessions(pages: Sequence[SessionList]) -> str:
    rows = [_row(session) for page in pages for session in page.sessions]
    return format_table([HEADER, *rows]) if rows else "there are no sessions"


def _row(session: SessionView) -> tuple[str, ...]:
    time_ms = session.time_budget_remaining_ms
    return (
        str(session.session_id),
        duration(session.ttl_ms_remaining / 1000),
        f"{session.turns}/{session.turns + session.turns_remaining}",
        one_line(session.pool_id),
        yes_no(session.kv_warmth),
        optional(session.tokens_budget_remaining),
        one_line(None if time_ms is None else duration(time_ms / 1000)),
        optional(session.cost_budget_remaining),
    )


SESSIONS = CliCommand(
    "sessions",
    "show the sessions; show, limit or end one",
    sessions,
    [
        argument("id", nargs="?", type=identifier, metavar="ID", help="session, a UUID", completion=SESSION_IDS),
        *PAGE_ARGUMENTS,
        *LIST_ARGUMENTS,
        argument("--delete", action="store_true", help="end the session"),
        argument("--ttl-ms", type=int, metavar="MS", help="end the session after this time without a turn"),
        argument("--max-turns", type=int, metavar="N", help="maximum number of turns"),
        argument("--tokens-budget", type=int, metavar="N", help="tokens that the session may use in total"),
        argument("--time-budget-ms", type=int, metavar="MS", help="engine time that the session may use in total"),
        argument("--cost-budget", type=finite_number, metavar="X", help="cost that the session may cause in total"),
    ],
)
