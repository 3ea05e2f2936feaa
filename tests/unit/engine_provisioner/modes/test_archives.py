"""Archives yield their llama-server, and malicious ones cannot write outside their directory."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.modes import archives
from engine_provisioner.modes.archives import BadArchive, find_executable, leaves_directory, unpack

SERVER = b"#!/bin/sh\n"


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"", mode: int = 0o755
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(content), mode
    return info, content


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, name: str = "bin/llama-server") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README", "x")
        archive.writestr(name, SERVER)
    return path


def bare(path: Path) -> Path:
    path.write_bytes(SERVER)
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda path: tar(path, member("llama/bin/llama-server", content=SERVER)),
        lambda path: tar(path, member("llama-server", content=SERVER), mode="w:xz"),
        lambda path: tar(path, member("./llama-server", content=SERVER), mode="w:"),
        zipped,
        bare,
    ],
    ids=["tar.gz", "tar.xz", "tar", "zip", "bare executable"],
)
def test_every_archive_type_yields_an_executable(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    unpack(make(tmp_path / "download"), tmp_path / "tree")
    found = find_executable(tmp_path / "tree")
    assert found.read_bytes() == SERVER
    assert os.access(found, os.X_OK)
    assert [path.stat().st_mode & 0o777 for path in (found, found.parent)] == [0o750, 0o750]


@pytest.mark.parametrize(
    "members",
    [
        [member("../escaped", content=b"x")],
        [member("/tmp/escaped", content=b"x")],
        [member("a/../../escaped", content=b"x")],
        [member("link", tarfile.SYMTYPE, "/etc")],
        [member("link", tarfile.SYMTYPE, "../..")],
        [member("d/e/x", tarfile.SYMTYPE, "../.."), member("z", tarfile.SYMTYPE, "d/e/x/../..")],
        [member("hard", tarfile.LNKTYPE, "../../etc/passwd")],
        [member("device", tarfile.CHRTYPE)],
        [member("fifo", tarfile.FIFOTYPE)],
    ],
)
@pytest.mark.parametrize("has_data_filter", [True, False], ids=["data filter", "Debian 12, without"])
def test_archive_that_leaves_its_directory_is_rejected(
    tmp_path: Path,
    members: list[tuple[tarfile.TarInfo, bytes]],
    has_data_filter: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not has_data_filter:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with pytest.raises(BadArchive):
        unpack(tar(tmp_path / "a.tar.gz", *members), tmp_path / "deep/er/tree")
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "deep/escaped").exists()


def test_links_inside_the_archive_work(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "a.tar.gz",
        member("lib/libx.so.1", content=b"x"),
        member("lib/libx.so", tarfile.SYMTYPE, "libx.so.1"),
        member("llama-server", content=SERVER),
    )
    unpack(path, tmp_path / "tree")
    assert (tmp_path / "tree/lib/libx.so").read_bytes() == b"x"


def test_setuid_bits_are_removed(tmp_path: Path) -> None:
    unpack(tar(tmp_path / "a", member("llama-server", content=SERVER, mode=0o6777)), tmp_path / "tree")
    assert find_executable(tmp_path / "tree").stat().st_mode & 0o7777 == 0o750


def test_archive_over_the_size_limit_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SIZE_LIMIT", 100)
    with pytest.raises(BadArchive, match="is too large"):
        unpack(tar(tmp_path / "a", member("x", content=b"0" * 101)), tmp_path / "tree")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>not found</html>", "neither a supported archive"),
        (b"\x28\xb5\x2f\xfd rest", "zstd"),
        (b"\x1f\x8b broken", "cannot be unpacked"),
        (b"PK\x03\x04 broken", "cannot be unpacked"),
        (b"", "neither a supported archive"),
    ],
)
def test_unusable_file_is_rejected_with_its_type(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "download").write_bytes(content)
    with pytest.raises(BadArchive, match=words):
        unpack(tmp_path / "download", tmp_path / "tree")


def test_archive_without_llama_server_is_rejected(tmp_path: Path) -> None:
    unpack(tar(tmp_path / "a", member("README", content=b"x")), tmp_path / "tree")
    with pytest.raises(BadArchive, match="no executable named llama-server"):
        find_executable(tmp_path / "tree")


@given(st.lists(st.sampled_from(["..", ".", "a", "b c", "", "a\\..\\..\\.."]), max_size=5).map("/".join))
def test_accepted_member_names_stay_inside(name: str) -> None:
    if not leaves_directory(name):
        joined = os.path.normpath(os.path.join("/base", name.replace("\\", "/")))
        assert joined == "/base" or joined.startswith("/base/")
