"""A downloaded archive gives its llama-server, and whatever it tries stays inside its own directory."""

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
def test_every_kind_of_archive_gives_an_executable_for_the_group_alone(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    unpack(make(tmp_path / "download"), tmp_path / "tree")
    found = find_executable(tmp_path / "tree")
    assert found.read_bytes() == SERVER
    assert os.access(found, os.X_OK)
    assert [path.stat().st_mode & 0o777 for path in (found, found.parent)] == [0o750, 0o750]


@pytest.mark.parametrize(
    "evil",
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
def test_an_archive_that_reaches_out_is_refused(
    tmp_path: Path,
    evil: list[tuple[tarfile.TarInfo, bytes]],
    has_data_filter: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not has_data_filter:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with pytest.raises(BadArchive):
        unpack(tar(tmp_path / "a.tar.gz", *evil), tmp_path / "deep/er/tree")
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "deep/escaped").exists()


def test_links_inside_are_kept(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "a.tar.gz",
        member("lib/libx.so.1", content=b"x"),
        member("lib/libx.so", tarfile.SYMTYPE, "libx.so.1"),
        member("llama-server", content=SERVER),
    )
    unpack(path, tmp_path / "tree")
    assert (tmp_path / "tree/lib/libx.so").read_bytes() == b"x"


def test_set_user_id_bits_do_not_survive(tmp_path: Path) -> None:
    unpack(tar(tmp_path / "a", member("llama-server", content=SERVER, mode=0o6777)), tmp_path / "tree")
    assert find_executable(tmp_path / "tree").stat().st_mode & 0o7777 == 0o750


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SIZE_LIMIT", 100)
    with pytest.raises(BadArchive, match="larger than an engine can be"):
        unpack(tar(tmp_path / "a", member("x", content=b"0" * 101)), tmp_path / "tree")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>not found</html>", "neither an archive"),
        (b"\x28\xb5\x2f\xfd rest", "zstd"),
        (b"\x1f\x8b broken", "cannot be unpacked"),
        (b"PK\x03\x04 broken", "cannot be unpacked"),
        (b"", "neither an archive"),
    ],
)
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "download").write_bytes(content)
    with pytest.raises(BadArchive, match=words):
        unpack(tmp_path / "download", tmp_path / "tree")


def test_an_archive_without_a_server_says_so(tmp_path: Path) -> None:
    unpack(tar(tmp_path / "a", member("README", content=b"x")), tmp_path / "tree")
    with pytest.raises(BadArchive, match="no executable named llama-server"):
        find_executable(tmp_path / "tree")


@given(st.lists(st.sampled_from(["..", ".", "a", "b c", "", "a\\..\\..\\.."]), max_size=5).map("/".join))
def test_no_name_that_is_let_in_leads_out(name: str) -> None:
    if not leaves_directory(name):
        joined = os.path.normpath(os.path.join("/base", name.replace("\\", "/")))
        assert joined == "/base" or joined.startswith("/base/")
