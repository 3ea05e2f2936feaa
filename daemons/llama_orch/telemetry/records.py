"""Log records: events with stable message ids, and the handlers that write them.

There are three handlers: the journal with native fields, JSON lines, and text for a terminal. Daemons log events of
`llama_orch.telemetry.events` with `emit`, and use ordinary `logging` calls for everything else.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

from llama_orch.telemetry.correlation import current
from llama_orch.telemetry.events.event import Event
from llama_orch.telemetry.journal_socket import JOURNAL, JournalSocket
from llama_orch.telemetry.levels import TRACE, Levels

SHARED = "llama_orch"
NOISY = ("hypercorn", "quart", "httpx2", "httpcore2")
Format = Literal["auto", "journal", "json", "pretty"]
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


def emit(event: Event, /, **fields: object) -> None:
    """Log `event`. The fields fill its text and become journal fields in upper case."""
    logger = _logger(event.logger)
    if logger.isEnabledFor(event.level):
        # Logger.log would also search the stack for its caller, which is this function
        text, extra = event.text.format_map(_Fields(fields)), {"event": event, "fields": fields}
        record = logger.makeRecord(event.logger, event.level, __file__, EMIT_LINE, text, (), None, "emit", extra)
        logger.handle(record)


_logger = cache(logging.getLogger)
"""The loggers of events, without the lock that logging.getLogger takes: each task has several events."""
EMIT_LINE = emit.__code__.co_firstlineno


class _Fields(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return "-"


def priority(level: int) -> int:
    """Return the syslog priority of a logging level, as in sd-daemon(3)."""
    return next(number for floor, number in PRIORITIES if level >= floor)


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """Return the record's fields and the correlation id of the current request."""
    fields = {key: encodable(value) for key, value in getattr(record, "fields", {}).items() if value is not None}
    correlation = current.get()
    if correlation and "correlation_id" not in fields:
        fields["correlation_id"] = correlation
    return fields


def encodable(value: object) -> str:
    """Return `value` as text that can be encoded: file names may contain lone surrogates for invalid UTF-8."""
    return str(value).encode(errors="backslashreplace").decode()


class JsonHandler(logging.StreamHandler[Any]):
    """Writes one JSON object per line to standard error."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON, with `event` and `message_id` if it is an event."""
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
        extra = {key: value for key, value in fields_of(record).items() if key not in body}
        return _ENCODE(body | extra)


class PrettyHandler(logging.StreamHandler[Any]):
    """Writes time, level and message as text; with `prefix` instead the syslog priority that journald strips."""

    def __init__(self, prefix: bool = False) -> None:
        super().__init__(sys.stderr)
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, followed by the traceback if there is one."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        if self._prefix:
            return "\n".join(f"<{priority(record.levelno)}>{line}" for line in text.split("\n"))
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        return f"{clock} {record.levelname.lower():7} {record.name.partition('.')[0]}: {text}"


class JournalHandler(logging.Handler):
    """Writes native fields to the journal. `send` is systemd.journal.send, or JournalSocket.send."""

    def __init__(self, identifier: str, send: Callable[..., object]) -> None:
        super().__init__()
        self._identifier = identifier
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. An unreachable journal must not stop the daemon."""
        try:
            self._send(self._text(record), **self._fields(record))
        except Exception:  # like the handlers of the standard library
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
            "CODE_LINE": record.lineno,  # systemd-python requires a number
            "TARGET": record.name,
        }


def stderr_is_journal(environ: Mapping[str, str]) -> bool:
    """Return whether standard error is connected to the journal.

    JOURNAL_STREAM alone is not enough: a shell may have inherited it from the service that its terminal runs in. So
    systemd.exec(5) requires comparing the descriptor.
    """
    try:
        here = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{here.st_dev}:{here.st_ino}"


def journal_sender() -> Callable[..., object] | None:
    """Return what sends an entry: systemd-python, or our own on EL 9, which has none; None without a journal."""
    try:
        from systemd import journal
    except ImportError:
        return JournalSocket().send if JOURNAL.exists() else None
    return journal.send  # type: ignore[no-any-return]


def choose_handler(format_: Format, identifier: str, environ: Mapping[str, str]) -> logging.Handler:
    """Return the handler for a format. `auto` is the journal, text on a terminal, or JSON lines elsewhere."""
    if format_ == "auto":
        format_ = "journal" if stderr_is_journal(environ) else "pretty" if sys.stderr.isatty() else "json"
    if format_ == "journal":
        send = journal_sender()
        return JournalHandler(identifier, send) if send else PrettyHandler(prefix=True)
    return JsonHandler(sys.stderr) if format_ == "json" else PrettyHandler()


class LevelFilter(logging.Filter):
    """Applies the levels of RUST_LOG.

    The shared modules also belong to the daemon: `pool_managerd=debug` applies to all log records of pool-managerd.
    """

    def __init__(self, identifier: str, levels: Levels) -> None:
        super().__init__()
        self._daemon = identifier.replace("-", "_")
        self._levels = levels

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record has at least its logger's level."""
        names = [record.name]
        if record.name.startswith(SHARED):
            names.append(self._daemon + record.name.removeprefix(SHARED))
        return record.levelno >= self._levels.of(*names)


def configure(
    identifier: str, levels: Levels, format_: Format = "auto", environ: Mapping[str, str] = os.environ
) -> None:
    """Configure the root logger. Call it once, before anything is logged."""
    logging.addLevelName(TRACE, "TRACE")
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [choose_handler(format_, identifier, environ)]
    change_levels(identifier, levels)


def change_levels(identifier: str, levels: Levels) -> None:
    """Apply other levels to the handler that `configure` has installed."""
    quiet = tuple((name, max(levels.default, logging.WARNING)) for name in NOISY)
    root = logging.getLogger()
    root.handlers[0].filters[:] = [LevelFilter(identifier, replace(levels, loggers=quiet + levels.loggers))]
    root.setLevel(levels.lowest)
