"""The derived machine id matches systemd's, and the machine id itself is not revealed."""

import shutil
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.service.machine_id import APPLICATION, FILE, MACHINE_ID, app_specific, known_id, machine_id, parse
from tests.engines.fixtures import skip_or_fail


def test_id_matches_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-id128") is None or parse(MACHINE_ID.read_text() if MACHINE_ID.exists() else "") is None:
        skip_or_fail("systemd-id128 or /etc/machine-id is missing")
    command = ["systemd-id128", "machine-id", f"--app-specific={APPLICATION.hex()}"]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert machine_id(tmp_path) == theirs
    assert not list(tmp_path.iterdir())


@given(st.binary(min_size=16, max_size=16))
def test_id_is_uuid4_and_not_the_machine_id(own: bytes) -> None:
    derived = app_specific(own)
    assert (UUID(derived).version, UUID(derived).hex) == (4, derived)
    assert derived != own.hex()
    assert derived == app_specific(own)


@pytest.mark.parametrize("content", [None, "", "uninitialized\n", "0" * 32, "zz" * 16, "ab" * 15, "\xff"])
def test_machine_without_id_gets_a_stored_one(tmp_path: Path, content: str | None) -> None:
    etc, state = tmp_path / "etc", tmp_path / "state"
    if content is not None:
        etc.write_bytes(content.encode("latin-1"))
    first = machine_id(state, etc)
    assert machine_id(state, etc) == first
    assert machine_id(tmp_path / "other", etc) != first


def test_machine_id_takes_precedence(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    made_up = machine_id(tmp_path, etc)
    etc.write_text("0123456789abcdef0123456789abcdef\n")
    assert machine_id(tmp_path, etc) == app_specific(bytes.fromhex("0123456789abcdef" * 2)) != made_up


def test_id_that_cannot_be_stored_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert len(machine_id(blocked, tmp_path / "none")) == 32
    assert "systemd-machine-id-setup" in caplog.text


def test_known_id_reads_but_never_generates(tmp_path: Path) -> None:
    etc, state = tmp_path / "etc", tmp_path / "state"
    assert known_id(etc, state / FILE) is None
    assert not state.exists()
    made_up = machine_id(state, etc)
    assert known_id(etc, state / FILE) == made_up
    etc.write_text("0123456789abcdef0123456789abcdef\n")
    assert known_id(etc, state / FILE) == machine_id(state, etc) != made_up
