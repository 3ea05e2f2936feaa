"""Log records in the three formats."""

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_orch.settings.types import Secret
from llama_orch.telemetry import records
from llama_orch.telemetry.correlation import current
from llama_orch.telemetry.events.pools import HANDOFF_REJECTED
from llama_orch.telemetry.events.queen import TASK_ENDED
from llama_orch.telemetry.levels import parse_levels
from llama_orch.telemetry.records import JournalHandler, JsonHandler, PrettyHandler, choose_handler, emit, priority
from tests.systemd_module import systemd_module


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger; restored afterwards together with the correlation id."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    token = current.set(None)
    yield root
    current.reset(token)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


class Journal:
    """Records the calls of systemd.journal.send."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self._error = error

    def send(self, MESSAGE: str, **fields: str) -> None:  # noqa: N803 -- as systemd-python names it
        if self._error:
            raise self._error
        self.sent.append({"MESSAGE": MESSAGE, **fields})


@pytest.fixture
def journal(root: logging.Logger) -> Journal:
    journal = Journal()
    root.handlers[:] = [JournalHandler("queen-rbee", journal.send)]
    root.setLevel(logging.INFO)
    return journal


@pytest.fixture
def lines(root: logging.Logger) -> io.StringIO:
    """Return the lines of the JSON format."""
    stream = io.StringIO()
    root.handlers[:] = [JsonHandler(stream)]
    root.setLevel(logging.INFO)
    return stream


def ended(**more: object) -> None:
    fields = {"job_id": "j1", "state": "done", "pool_id": "p", "tokens_out": 3, "decode_ms": 1.5, **more}
    emit(TASK_ENDED, **fields)


def test_journal_record_has_event_fields(journal: Journal) -> None:
    current.set("request-1")
    ended(session_id=None)
    (sent,) = journal.sent
    assert sent["MESSAGE"] == "task j1 done on pool p: 3 tokens in 1.5 ms"
    assert sent["MESSAGE_ID"] == TASK_ENDED.message_id
    assert sent["PRIORITY"] == "6"
    assert sent["SYSLOG_IDENTIFIER"] == "queen-rbee"
    assert (sent["JOB_ID"], sent["POOL_ID"], sent["TOKENS_OUT"]) == ("j1", "p", "3")
    assert sent["CORRELATION_ID"] == "request-1"
    assert sent["LLORCH_EVENT"] == "task_ended"
    assert "SESSION_ID" not in sent, "a field without a value is left out"


def test_secret_is_logged_as_fingerprint(journal: Journal) -> None:
    token = Secret("0123456789abcdef")
    ended(token_fp6=token.fingerprint, given=token)
    assert "0123456789abcdef" not in str(journal.sent)
    assert journal.sent[0]["TOKEN_FP6"] == "9f9f51"


def test_event_fields_do_not_override_record_fields(journal: Journal) -> None:
    ended(message="m", priority="0", target="t", syslog_identifier="root", message_id="x")
    (sent,) = journal.sent
    assert (sent["PRIORITY"], sent["SYSLOG_IDENTIFIER"]) == ("6", "queen-rbee")
    assert (sent["TARGET"], sent["MESSAGE_ID"]) == ("queen_rbee.tasks", TASK_ENDED.message_id)


def test_exception_is_part_of_message(journal: Journal) -> None:
    try:
        raise KeyError("missing")
    except KeyError:
        logging.getLogger("queen_rbee").exception("it failed")
    assert "KeyError: 'missing'" in journal.sent[0]["MESSAGE"]
    assert journal.sent[0]["PRIORITY"] == "3"


@pytest.mark.parametrize("error", [OSError("no journal"), ValueError("bad"), UnicodeEncodeError("utf-8", "", 0, 1, "")])
def test_journal_error_does_not_stop_daemon(
    root: logging.Logger, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    root.handlers[:] = [JournalHandler("queen-rbee", Journal(error).send)]
    root.setLevel(logging.INFO)
    ended()
    assert "Logging error" in capsys.readouterr().err


def test_invalid_logging_call_does_not_stop_daemon(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = logging.LogRecord("queen_rbee", logging.ERROR, "f", 1, "%d", ("x",), None)
    JournalHandler("queen-rbee", journal.send).handle(wrong)
    assert journal.sent == []
    assert "Logging error" in capsys.readouterr().err


def test_non_utf8_file_name_can_be_logged(journal: Journal) -> None:
    name = os.fsdecode(b"pool-\xff.json")
    emit(HANDOFF_REJECTED, file=name, reason="bad", moved_to="-")
    assert journal.sent[0]["FILE"] == "pool-\\udcff.json"
    assert str(journal.sent).encode()


def test_systemd_python_accepts_the_fields() -> None:
    systemd = systemd_module("journal")
    name = os.fsdecode(b"\xff\n")
    handler = JournalHandler("queen-rbee", systemd.send)
    made = logging.LogRecord("x", 20, __file__, 1, name, None, None)
    handler._send(handler._text(made), **handler._fields(made))


def test_json_line_has_message_event_and_fields(lines: io.StringIO) -> None:
    current.set("request-1")
    ended(target="displaced?", note="line\nbreak")
    (line,) = lines.getvalue().splitlines()
    record = json.loads(line)
    assert record["event"] == "task_ended"
    assert record["message_id"] == TASK_ENDED.message_id
    assert (record["level"], record["target"]) == ("info", "queen_rbee.tasks")
    assert (record["job_id"], record["correlation_id"]) == ("j1", "request-1")
    assert record["ts"].endswith("+00:00")
    assert list(record)[:4] == ["ts", "level", "target", "message"]


def test_missing_field_is_shown_as_dash(lines: io.StringIO) -> None:
    emit(TASK_ENDED, job_id="j1")
    assert json.loads(lines.getvalue())["message"] == "task j1 - on pool -: - tokens in - ms"


def test_terminal_text_is_one_line_per_record() -> None:
    record = logging.LogRecord("queen_rbee.tasks", logging.WARNING, "f", 1, "task %s failed", ("j1",), None)
    assert PrettyHandler().format(record)[8:] == " warning queen_rbee: task j1 failed"


def test_prefix_is_on_every_line() -> None:
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "one\ntwo", None, None)
    assert PrettyHandler(prefix=True).format(record) == "<3>one\n<3>two"


@pytest.mark.parametrize(("level", "number"), [(50, 2), (40, 3), (30, 4), (20, 6), (10, 7), (5, 7)])
def test_priorities_match_syslog(level: int, number: int) -> None:
    assert priority(level) == number


def test_auto_uses_journal_only_if_stderr_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.fstat(2)
    stream = {"JOURNAL_STREAM": f"{here.st_dev}:{here.st_ino}"}
    monkeypatch.setattr(records, "JOURNAL", Path("/"))
    monkeypatch.setattr(records, "JournalSocket", Journal)
    assert isinstance(choose_handler("auto", "x", stream), JournalHandler)
    monkeypatch.setitem(sys.modules, "systemd", None)  # as on EL 9
    assert isinstance(choose_handler("auto", "x", stream), JournalHandler)
    monkeypatch.setattr(records, "JOURNAL", Path("/nowhere"))
    assert isinstance(choose_handler("auto", "x", stream), PrettyHandler)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(choose_handler("auto", "x", {"JOURNAL_STREAM": "8:1"}), JsonHandler)
    assert isinstance(choose_handler("auto", "x", {}), JsonHandler)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(choose_handler("auto", "x", {}), PrettyHandler)
    assert isinstance(choose_handler("json", "x", {}), JsonHandler)


SAID = ("queen_rbee.dispatcher", "llama_orch.spool", "pool_managerd", "hypercorn.error", "hypercorn.access")


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("info", {}),
        ("debug", {"queen_rbee.dispatcher", "llama_orch.spool", "pool_managerd"}),
        ("info,queen-rbee=debug", {"queen_rbee.dispatcher", "llama_orch.spool"}),
        ("info,queen_rbee::dispatch=trace", {"queen_rbee.dispatcher"}),
        ("info,queen-rbee::spool=debug", {"llama_orch.spool"}),
        ("info,llama_orch=debug", {"llama_orch.spool"}),
        ("info,hypercorn=debug", {"hypercorn.error", "hypercorn.access"}),
        ("off,hypercorn::error=debug", {"hypercorn.error"}),
    ],
)
def test_levels_apply_to_their_targets(
    root: logging.Logger, text: str, heard: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    records.configure("queen-rbee", parse_levels(text), "json")
    for name in SAID:
        logging.getLogger(name).debug("listen")
    written = [json.loads(line)["target"] for line in capsys.readouterr().err.splitlines()]
    assert written == [name for name in SAID if name in heard]


def test_root_level_drops_unneeded_records(root: logging.Logger) -> None:
    records.configure("queen-rbee", parse_levels("info,queen-rbee=warn"), "json")
    assert not logging.getLogger("queen_rbee.dispatcher").isEnabledFor(logging.DEBUG)
