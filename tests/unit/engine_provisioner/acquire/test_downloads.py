"""Downloads are complete and verified, resume after a break, and fail with a useful message."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine_provisioner.acquire.downloads import Download, describe_progress, fetch
from engine_provisioner.acquire.partial_file import strong_validator
from engine_provisioner.failures import ProvisioningFailure, Retry
from tests.unit.engine_provisioner.file_server import FileServer, serving

CONTENT = b"GGUF" + bytes(range(256)) * 64
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


async def nothing(_there: int, _total: int | None) -> None:
    return None


def download(server: FileServer, directory: Path, checksum: str | None = CHECKSUM, idle_s: float = 10) -> Download:
    return Download(server.url, directory / "key/model.gguf", checksum, idle_s)


async def failure_of(download: Download) -> ProvisioningFailure:
    try:
        await fetch(download, nothing)
    except ProvisioningFailure as failure:
        return failure
    pytest.fail("the download should fail")


async def test_finished_download_is_group_readable_and_leaves_no_parts(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT)) as server:
        requested = download(server, tmp_path)
        await fetch(requested, nothing)
    assert requested.target.read_bytes() == CONTENT
    assert requested.target.stat().st_mode & 0o777 == 0o640
    assert os.listdir(requested.target.parent) == ["model.gguf"]


async def test_progress_is_reported(tmp_path: Path) -> None:
    progress: list[tuple[int, int | None]] = []

    async def on_bytes(there: int, total: int | None) -> None:
        progress.append((there, total))

    async with serving(FileServer(CONTENT)) as server:
        await fetch(download(server, tmp_path), on_bytes)
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert describe_progress(1 << 30, 4 << 30) == "25 % of 4.0 GiB"


async def test_broken_download_resumes(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT, cut_after=5000)) as server:
        requested = download(server, tmp_path)
        assert (await failure_of(requested)).retry is Retry.BACKOFF
        assert not requested.target.exists()
        await fetch(requested, nothing)
        assert "range: bytes=5000-" in server.requests[1].lower()
    assert requested.target.read_bytes() == CONTENT


async def test_file_changed_on_the_server_is_downloaded_again(tmp_path: Path) -> None:
    async with serving(FileServer(b"GGUF the old one" * 1000, cut_after=5000)) as server:
        requested = download(server, tmp_path)
        await failure_of(requested)
        server.content, server.etag = CONTENT, '"v2"'
        await fetch(requested, nothing)
    assert requested.target.read_bytes() == CONTENT


@pytest.mark.parametrize("fault", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
async def test_server_without_resume_is_asked_for_the_whole_file(tmp_path: Path, fault: dict[str, object]) -> None:
    async with serving(replace(FileServer(CONTENT, cut_after=5000), **fault)) as server:  # type: ignore[arg-type]
        requested = download(server, tmp_path)
        await failure_of(requested)
        await fetch(requested, nothing)
    assert requested.target.read_bytes() == CONTENT


async def test_wrong_checksum_leaves_no_file_and_backs_off(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT)) as server:
        requested = download(server, tmp_path, "sha256:" + "0" * 64)
        failure = await failure_of(requested)
    assert failure.retry is Retry.REFETCH
    assert CHECKSUM in failure.message
    assert os.listdir(requested.target.parent) == []


async def test_silent_server_fails_after_the_idle_limit(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT, silent_after=100)) as server:
        assert "sent nothing for 0.2 s" in (await failure_of(download(server, tmp_path, idle_s=0.2))).message


@pytest.mark.parametrize(("status", "retry"), [(404, Retry.AFTER_FIX), (403, Retry.AFTER_FIX), (503, Retry.BACKOFF)])
async def test_error_status_is_reported(tmp_path: Path, status: int, retry: Retry) -> None:
    async with serving(FileServer(b"", status=status)) as server:
        failure = await failure_of(download(server, tmp_path))
    assert str(status) in failure.message
    assert failure.retry is retry


async def test_unreachable_server_is_reported_without_the_query(tmp_path: Path) -> None:
    failure = await failure_of(Download("http://127.0.0.1:1/model.gguf?token=secret", tmp_path / "m", None, 1))
    assert "cannot download http://127.0.0.1:1/model.gguf" in failure.message
    assert "secret" not in str(failure)


async def test_redirect_to_remote_plain_http_needs_a_checksum(tmp_path: Path) -> None:
    async with serving(FileServer(b"", status=302)) as server:
        server.location = server.url.replace("127.0.0.1", "localhost.invalid.")
        failure = await failure_of(download(server, tmp_path, None))
    assert "cannot download" in failure.message or "plain http" in failure.message


async def test_full_disk_is_reported_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    async with serving(FileServer(CONTENT)) as server:
        failure = await failure_of(download(server, tmp_path))
    assert "are free" in failure.message
    assert "Free disk space" in failure.hint


async def test_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a file")
    async with serving(FileServer(CONTENT)) as server:
        failure = await failure_of(download(server, tmp_path))
    assert f"in {tmp_path}/key: " in failure.message


def test_weak_etag_is_not_used_for_resuming() -> None:
    assert strong_validator({"etag": 'W/"1"', "last-modified": "Mon"}) == "Mon"
    assert strong_validator({"etag": '"1"', "last-modified": "Mon"}) == '"1"'
    assert strong_validator({}) is None


@pytest.mark.parametrize("proxy", ["socks5://user:secret@h:1", "htps://user:secret@h:1", "http://user:secret@[::1:1"])
async def test_invalid_proxy_is_reported_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    download = Download("https://192.0.2.1/m.gguf", tmp_path / "m.gguf", None, 1.0)
    with pytest.raises(ProvisioningFailure, match="cannot download") as caught:
        await fetch(download, nothing)
    assert "secret" not in str(caught.value)
