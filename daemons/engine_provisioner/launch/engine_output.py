"""The lines that an engine writes: how much each matters, and which of them tells an operator why it ended."""

import logging
import re
from collections.abc import Iterable, Sequence

LINE_LIMIT = 1000
KEPT_LINES = 100
PREFIX = re.compile(r"^(?:\d+\.\d\d\.\d{3}\.\d{3} )?(?P<level>[DIWE] )?\s*")
CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
TELLING = re.compile(
    r"error|fail|unable|cannot|can't|couldn't|could not|invalid|unknown|abort|assert|out of memory", re.I
)
HOLLOW = re.compile(
    r"exiting due to|cleaning up|failed to load model|fit params|cannot meet free memory|failed to initialize the"
    r" context"
)
TASK = re.compile(r"\btask (?:id = )?-?\d")
"""About one request: there are several such lines for each, some of them warnings, and clients can cause errors."""
SEVERITIES = {"E": logging.ERROR, "W": logging.WARNING}


def clean(raw: bytes) -> str:
    """One line of an engine's output without colours, control characters and excess."""
    return CONTROL.sub("", raw.decode(errors="replace")).strip()[:LINE_LIMIT]


def level_of(line: str) -> str:
    """The level letter of llama-server's log line, one of D, I, W, E, or `-` where it has none."""
    match = PREFIX.match(line)
    return (match["level"] or "-").strip() if match else "-"


def severity_of(line: str) -> int:
    """The logging level of an engine's line: DEBUG for what it writes while all is well, and about single requests.

    Releases that write no level letter are judged by their words.
    """
    if TASK.search(line):
        return logging.DEBUG
    letter = level_of(line)
    if letter == "-" and TELLING.search(line) and not HOLLOW.search(line):
        return logging.WARNING
    return SEVERITIES.get(letter, logging.DEBUG)


def without_prefix(line: str) -> str:
    """The line without llama-server's clock and level."""
    return PREFIX.sub("", line, count=1)


def cause_in(lines: Sequence[str]) -> str | None:
    """The last line that gives a cause, rather than a consequence such as `exiting due to model loading error`."""
    errors = [line for line in lines if TELLING.search(line) and level_of(line) in "E-"]
    return next((line for line in reversed(errors) if not HOLLOW.search(line)), None)


def exit_cause(words: str) -> str:
    """`ended`, `killed` or `oom`: what the words of `epitaph` say of how the engine ended."""
    manner = words.partition(":")[0]
    if "was killed by" not in manner:
        return "ended"
    return "oom" if "out of memory" in manner else "killed"


def epitaph(how: str, lines: Iterable[str]) -> str:
    """How an engine ended, with its own words: the cause if it gave one, and its very last line."""
    said = [line for line in lines if line.strip()]
    if not said:
        return f"the engine {how} without a word"
    cause, last = cause_in(said), without_prefix(said[-1])
    told = f"the engine {how}" if cause is None else f"the engine {how}: {without_prefix(cause)}"
    return told if cause == said[-1] else f"{told}; its last line: {last}"
