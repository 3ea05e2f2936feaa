"""The digest of a local file."""

import hashlib
import os
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_orch.service.exit import ExitStatus
from orchctl.commands import digest
from orchctl.commands.digest import file_digest
from orchctl.errors import CommandError
from tests.unit.orchctl.terminal import screen
from tests.unit.orchctl.test_output import FakeTerminal


@given(st.binary(max_size=64), st.integers(1, 16))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_digest_is_independent_of_chunk_size(tmp_path: Path, data: bytes, chunk: int) -> None:
    (tmp_path / "f").write_bytes(data)
    with mock.patch.object(digest, "CHUNK_BYTES", chunk):
        assert file_digest(str(tmp_path / "f")) == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_progress_is_shown_and_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "CHUNK_BYTES", 10)
    (tmp_path / "m.gguf").write_bytes(b"x" * 40)
    with mock.patch("sys.stderr", FakeTerminal()) as terminal:
        file_digest(str(tmp_path / "m.gguf"))
    updates = [text.strip() for text in terminal.getvalue().split("\r")]
    assert [text for text in updates if text] == [f"orchctl: m.gguf: {percent} %" for percent in (25, 50, 75, 100)]
    assert screen(terminal.getvalue()) == [""]


def test_special_or_missing_file_is_refused(tmp_path: Path) -> None:
    for name in (os.devnull, str(tmp_path), str(tmp_path / "missing")):
        with pytest.raises(CommandError, match="is not a regular file") as caught:
            file_digest(name)
        assert caught.value.status is ExitStatus.NO_INPUT
