"""The argument --since: how far back a command looks."""

import argparse
import re
from datetime import UTC, datetime, timedelta

from orchctl.command import argument

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def since(text: str) -> datetime:
    """A time before now such as 90s, 5m, 1h or 2d, or a local date and time such as 2026-11-30 20:00."""
    if match := re.fullmatch(r"([0-9]{1,5})([smhd])", text):
        return datetime.now(UTC) - timedelta(**{UNITS[match[2]]: int(match[1])})
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        examples = "examples: 5m, 2h, 1d, 2026-11-30 or '2026-11-30 20:00'"
        raise argparse.ArgumentTypeError(f"invalid time: {text!r} ({examples})") from None


SINCE = argument("--since", type=since, metavar="TIME", help="from this time on: 5m, 2h or 1d ago, or a date and time")
FOLLOW = argument("--follow", action="store_true", help="print what comes later, too, until Ctrl-C")
