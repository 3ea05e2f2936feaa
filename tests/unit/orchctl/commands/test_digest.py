"""The digest of a local file."""

import hashlib
import os
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_orch.service.exit import ExitStatus
from orchctl.commands import catalog as digest
from orchctl.commands.catalog import digest_of
from orchctl.errors import CommandError
from tests.unit.orchctl.terminal import screen
from tests.unit.orchctl.test_output import Watched


@given(st.binary(max_size=64), st.integers(1, 16))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_that_of_all_bytes_however_they_are_read(tmp_path: Path, data: bytes, chunk: int) -> None:
    (tmp_path / "f").write_bytes(data)
    with mock.patch.object(digest, "CHUNK", chunk):
        assert digest_of(str(tmp_path / "f")) == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_who_waits_sees_how_far_it_is_and_nothing_of_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "CHUNK", 10)
    (tmp_path / "m.gguf").write_bytes(b"x" * 40)
    with mock.patch("sys.stderr", Watched()) as terminal:
        digest_of(str(tmp_path / "m.gguf"))
    shown = [text.strip() for text in terminal.getvalue().split("\r")]
    assert [text for text in shown if text] == [f"orchctl: m.gguf: {percent} %" for percent in (25, 50, 75, 100)]
    assert screen(terminal.getvalue()) == [""]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    for name in (os.devnull, str(tmp_path), str(tmp_path / "missing")):
        with pytest.raises(CommandError, match="is no file") as caught:
            digest_of(name)
        assert caught.value.status is ExitStatus.NO_INPUT
