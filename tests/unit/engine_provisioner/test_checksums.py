"""Checksums are cached until the file changes."""

import hashlib
import os
from pathlib import Path

import pytest

from engine_provisioner.checksums import digest, verify
from engine_provisioner.failures import ProvisioningFailure, Retry


class Blocks:
    """Counts blocks read."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self) -> None:
        self.read += 1


def test_unchanged_file_is_read_once(tmp_path: Path) -> None:
    file, blocks = tmp_path / "model", Blocks()
    file.write_bytes(b"abc")
    expected = "sha256:" + hashlib.sha256(b"abc").hexdigest()
    assert [digest(file, tmp_path / "cache", blocks) for _ in range(3)] == [expected] * 3
    assert blocks.read == 1


def test_changed_file_of_equal_size_is_read_again(tmp_path: Path) -> None:
    file, blocks = tmp_path / "model", Blocks()
    file.write_bytes(b"abc")
    first = digest(file, tmp_path / "cache", blocks)
    file.write_bytes(b"abd")
    os.utime(file, ns=(1, 1))
    assert digest(file, tmp_path / "cache", blocks) != first
    assert blocks.read == 2


@pytest.mark.parametrize("entry", [b"", b"[]", b'{"signature": 1}', b'{"signature": null, "digest": 7}', b"\xff"])
def test_corrupt_cache_entry_is_ignored(tmp_path: Path, entry: bytes) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"abc")
    first = digest(file, tmp_path / "cache", Blocks())
    for path in (tmp_path / "cache/checksums").iterdir():
        path.write_bytes(entry)
    assert digest(file, tmp_path / "cache", Blocks()) == first


def test_unwritable_cache_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"abc")
    (tmp_path / "cache").write_bytes(b"a file, not a directory")
    assert digest(file, tmp_path / "cache", Blocks()).startswith("sha256:")


def test_wrong_checksum_fails_and_watches_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"abc")
    with pytest.raises(ProvisioningFailure, match="the pools file requires sha256:0000") as caught:
        verify(file, "sha256:" + "0" * 64, tmp_path, Blocks())
    assert (caught.value.retry, caught.value.watch) == (Retry.AFTER_FIX, (file,))
