"""Log records: operator-visible events with stable ids, and the three ways they are written.

Owns the handlers: the journal with native fields, JSON lines, and text for a terminal. `emit` is how a daemon
reports an event of `llama_orch.telemetry.events`; ordinary `logging` calls work beside it.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from llama_orch.telemetry.correlation import current
from llama_orch.telemetry.events import Event
from llama_orch.telemetry.levels import TRACE, Levels

SHARED = "llama_orch"
NOISY = ("hypercorn", "quart", "httpx2", "httpcore2")
Format = Literal["auto", "journal", "json", "pretty"]
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


def emit(event: Event, /, **fields: object) -> None:
    """Log `event` with its fields; the fields fill its text and become journal fields in upper case."""
    logging.getLogger(event.logger).log(
        event.level, event.text.format_map(_Shown(fields)), extra={"event": event, "fields": fields}
    )


class _Shown(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return "-"


def priority(level: int) -> int:
    """The syslog priority of a logging level, as sd-daemon(3) numbers them."""
    return next(number for floor, number in PRIORITIES if level >= floor)


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """The record's own fields, with the correlation id of the request it was made under."""
    fields = {key: encodable(value) for key, value in getattr(record, "fields", {}).items() if value is not None}
    correlation = current.get()
    if correlation and "correlation_id" not in fields:
        fields["correlation_id"] = correlation
    return fields


def encodable(value: object) -> str:
    """`value` as text that every sink takes: file names may hold bytes that are not UTF-8, as lone surrogates."""
    return str(value).encode(errors="backslashreplace").decode()


class JsonHandler(logging.StreamHandler[Any]):
    """One JSON object a line on standard error."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; `event` and `message_id` where it is an operator-visible event."""
        event: Event | None = getattr(record, "event", None)
        body: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "target": record.name,
            "message": encodable(record.getMessage()),
        }
        if event:
            body |= {"event": event.name, "message_id": event.message_id}
        if record.exc_info:
            body["exception"] = logging.Formatter().formatException(record.exc_info)
        own = {key: value for key, value in fields_of(record).items() if key not in body}
        return json.dumps(body | own, ensure_ascii=False)


class PrettyHandler(logging.StreamHandler[Any]):
    """Text for a person: time, level, message. With `prefix` the syslog priority that journald strips."""

    def __init__(self, prefix: bool = False) -> None:
        super().__init__(sys.stderr)
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it where there is one."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        if self._prefix:
            return "\n".join(f"<{priority(record.levelno)}>{line}" for line in text.split("\n"))
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        return f"{clock} {record.levelname.lower():7} {record.name.partition('.')[0]}: {text}"


class JournalHandler(logging.Handler):
    """Native fields to the journal through systemd-python; `send` is systemd.journal.send."""

    def __init__(self, identifier: str, send: Callable[..., object]) -> None:
        super().__init__()
        self._identifier = identifier
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. A journal that cannot be reached must not stop the daemon."""
        try:
            self._send(self._text(record), **self._fields(record))
        except Exception:  # as in every handler of the standard library
            self.handleError(record)

    def _text(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        return encodable(message)

    def _fields(self, record: logging.LogRecord) -> dict[str, str | int]:
        event: Event | None = getattr(record, "event", None)
        fields: dict[str, str | int] = {
            key.upper(): value for key, value in fields_of(record).items() if key != "message"
        }
        if event:
            fields |= {"MESSAGE_ID": event.message_id, "LLORCH_EVENT": event.name}
        return fields | {
            "PRIORITY": str(priority(record.levelno)),
            "SYSLOG_IDENTIFIER": self._identifier,
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,  # systemd-python takes this one as a number only
            "TARGET": record.name,
        }


def stderr_is_journal(environ: Mapping[str, str]) -> bool:
    """Whether standard error goes to the journal. JOURNAL_STREAM alone says nothing: a terminal's shell may have it
    from a service that the terminal runs in, so systemd.exec(5) wants the descriptor compared."""
    try:
        here = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{here.st_dev}:{here.st_ino}"


def choose_handler(wanted: Format, identifier: str, environ: Mapping[str, str]) -> logging.Handler:
    """`auto`: the journal where standard error goes there, text on a terminal, JSON lines elsewhere."""
    if wanted == "auto":
        wanted = "journal" if stderr_is_journal(environ) else "pretty" if sys.stderr.isatty() else "json"
    if wanted == "journal":
        try:
            from systemd import journal
        except ImportError:
            return PrettyHandler(prefix=True)
        return JournalHandler(identifier, journal.send)
    return JsonHandler(sys.stderr) if wanted == "json" else PrettyHandler()


class Wanted(logging.Filter):
    """Lets through what RUST_LOG asks for. The modules that the daemons share are a part of the daemon as well:
    `pool_managerd=debug` is about all that pool-managerd says."""

    def __init__(self, identifier: str, levels: Levels) -> None:
        super().__init__()
        self._daemon = identifier.replace("-", "_")
        self._levels = levels

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is as important as its logger's level."""
        names = [record.name]
        if record.name.startswith(SHARED):
            names.append(self._daemon + record.name.removeprefix(SHARED))
        return record.levelno >= self._levels.of(*names)


def configure(
    identifier: str, levels: Levels, wanted: Format = "auto", environ: Mapping[str, str] = os.environ
) -> None:
    """Make the root logger write as asked; called once, before anything is logged."""
    logging.addLevelName(TRACE, "TRACE")
    logging.captureWarnings(True)
    quiet = tuple((name, max(levels.default, logging.WARNING)) for name in NOISY)
    handler = choose_handler(wanted, identifier, environ)
    handler.addFilter(Wanted(identifier, replace(levels, loggers=quiet + levels.loggers)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(levels.lowest)
