"""Ollama's `keep_alive`: Go's durations, such as `1h30m`, or seconds; negative means for ever. Pure."""

import re
from decimal import Decimal

from llama_orch.contracts.keep_alive import LONGEST_S

PART = re.compile(r"(?P<number>[0-9]{1,12}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?P<unit>ns|us|µs|μs|ms|s|m|h)")
DURATION = re.compile(rf"[+-]?(?:{PART.pattern.replace('?P<number>', '?:').replace('?P<unit>', '?:')})+")
NUMBER = re.compile(r"[+-]?[0-9]{1,12}(?:\.[0-9]{0,9})?")
UNITS = {"ns": "1e-9", "us": "1e-6", "µs": "1e-6", "μs": "1e-6", "ms": "1e-3", "s": "1", "m": "60", "h": "3600"}
TEXT_LIMIT = 64
EXPECTED = "must be a duration such as 5m, 1h30m or 0, a number of seconds, or a negative one to keep the model loaded"


def keep_alive_of(given: str | float) -> float | int:
    """Return the seconds that `given` means, -1 for ever, also for more than a year. Raises ValueError."""
    seconds = _seconds(given) if isinstance(given, str) else given
    if seconds < 0 or seconds > LONGEST_S:
        return -1
    return round(seconds, 6)


def _seconds(text: str) -> float:
    text = text.strip()
    if len(text) <= TEXT_LIMIT and NUMBER.fullmatch(text):
        return float(text)
    if len(text) > TEXT_LIMIT or not DURATION.fullmatch(text):
        raise ValueError(EXPECTED)
    total = sum((Decimal(part["number"]) * Decimal(UNITS[part["unit"]]) for part in PART.finditer(text)), Decimal())
    return float(-total if text.startswith("-") else total)
