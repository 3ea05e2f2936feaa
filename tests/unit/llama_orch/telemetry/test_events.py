"""The table of events and the journal catalog."""

import ast
import re
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import llama_orch
from llama_orch.telemetry.events import pools, provisioning, service
from llama_orch.telemetry.events.catalog import CATALOG, MODULES
from llama_orch.telemetry.events.event import Event
from tools.generate import journal_catalog

DAEMONS = Path(llama_orch.__file__).parent.parent
BY_CONSTANT = {name: value for module in MODULES for name, value in vars(module).items() if isinstance(value, Event)}


def named(event: Event) -> str:
    return event.name


def fields_of(event: Event) -> set[str]:
    return {name for _text, name, _spec, _conversion in string.Formatter().parse(event.text) if name}


def test_ids_and_names_are_unique() -> None:
    assert len({event.message_id for event in CATALOG}) == len(CATALOG)
    assert len({event.name for event in CATALOG}) == len(CATALOG)


def test_published_ids_do_not_change() -> None:
    assert service.CONFIGURATION_REFUSED.message_id == "f3c95789ace14954ac5d6baed2eac902"
    assert pools.HANDOFF_REJECTED.message_id == "0ecaf828e2f745538fcc69d79561a0d1"
    assert provisioning.ENGINE_FAILED.message_id == "bdfaef428c7d4431b331dab129ea3a7b"


@pytest.mark.parametrize("event", CATALOG, ids=named)
def test_event_is_well_formed(event: Event) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", event.message_id), "a random id"
    assert re.fullmatch(r"[a-z][a-z0-9_]*", event.name)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", field) for field in fields_of(event)), "a journal field in upper case"
    assert event.advice.strip() == event.advice != ""
    assert all(len(line) <= 110 for line in event.advice.splitlines())


@pytest.mark.parametrize("event", CATALOG, ids=named)
def test_advice_variables_are_event_fields(event: Event) -> None:
    known = {field.upper() for field in fields_of(event)} | {"SYSLOG_IDENTIFIER"}
    assert set(re.findall(r"@([A-Z_]+)@", event.advice)) <= known


def emits() -> Iterator[tuple[str, str, set[str]]]:
    """Yield place, event and fields of each call of emit with explicit fields."""
    for path in sorted(DAEMONS.glob("*/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("emit", "records.emit"):
                given = {keyword.arg for keyword in node.keywords}
                if None not in given:
                    event = ast.unparse(node.args[0]).rpartition(".")[2]
                    yield f"{path.name}:{node.lineno}", event, {name for name in given if name}


def test_emit_calls_give_all_fields_of_the_text() -> None:
    calls = list(emits())
    assert len(calls) > 10
    for where, name, given in calls:
        if event := BY_CONSTANT.get(name):
            assert fields_of(event) <= given, where


def test_journalctl_accepts_the_catalog(tmp_path: Path) -> None:
    if not shutil.which("journalctl"):
        pytest.skip("journalctl is not on this machine")
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    (place / "llama-orch.catalog").write_text(journal_catalog())
    command = ["journalctl", f"--root={tmp_path}"]
    made = subprocess.run([*command, "--update-catalog"], capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "")
    database = (tmp_path / "var/lib/systemd/catalog/database").read_bytes()
    for event in CATALOG:
        assert bytes.fromhex(event.message_id) in database
        assert event.advice.encode() in database


def test_catalog_entries_have_all_headers() -> None:
    entries = re.split(r"^-- ", journal_catalog(), flags=re.MULTILINE)[1:]
    assert len(entries) == len(CATALOG)
    for entry, event in zip(entries, CATALOG, strict=True):
        head, _blank, text = entry.partition("\n\n")
        assert head.splitlines()[0] == event.message_id
        assert {line.split(":")[0] for line in head.splitlines()[1:]} == {"Subject", "Defined-By", "Documentation"}
        assert text.strip() == event.advice
