"""Atomic replacement of files."""

import os
from pathlib import Path

import pytest

from llama_orch.files.durable import replace


def test_replace_sets_mode_0640_despite_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        for content in (b"a" * 1000, b"b"):
            replace(tmp_path / "x.json", content)
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").read_bytes() == b"b"
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["x.json"]


def test_failed_write_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace(tmp_path / "x.json", b"x")
    assert os.listdir(tmp_path) == []
