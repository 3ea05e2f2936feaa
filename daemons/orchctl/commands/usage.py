"""orchctl usage: what each key of a user has used."""

import argparse

from llama_orch.contracts.keys import USAGE_PATH, KeyUsage, UsageList
from orchctl.client import QueenClient
from orchctl.command import CliCommand
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.tables import UNKNOWN, format_table, one_line

HEADER = ("KEY", "REQUESTS", "REFUSED", "OPEN", "TOKENS IN", "TOKENS OUT", "TODAY", "OF BUDGET")


async def usage(options: argparse.Namespace, queen: QueenClient) -> None:
    """Show the use of keys. Raises CommandError."""
    body = await queen.get(USAGE_PATH)
    print_one(options, body, UsageList, format_usage, lambda listed: (each.key for each in listed.keys))


def format_usage(listed: UsageList) -> str:
    """Format a row for each key. TODAY is since midnight, UTC."""
    if not listed.keys:
        return "no user has a key; orchctl key add NAME adds one"
    return format_table([HEADER, *map(_row, listed.keys)])


def _row(key: KeyUsage) -> tuple[str, ...]:
    counts = (key.requests, key.refused, key.waiting_or_running, key.tokens_in, key.tokens_out, key.tokens_today)
    return (one_line(key.key), *map(str, counts), _budget(key))


def _budget(key: KeyUsage) -> str:
    """Return how much of the budget that is nearer to its end is used."""
    used = [
        (spent / limit, f"{100 * spent / limit:.0f} % {words}")
        for spent, limit, words in (
            (key.tokens_today, key.tokens_per_day, "of the day"),
            (key.tokens_in + key.tokens_out, key.tokens_total, "in total"),
        )
        if limit
    ]
    return max(used)[1] if used else UNKNOWN


USAGE = CliCommand("usage", "show what the keys of users have used", usage, LIST_ARGUMENTS)
