"""Downloads are complete and verified, resume after a break, and fail with a useful message."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch import backoff, downloader
from engine_provisioner.fetch.content_range import strong_validator
from engine_provisioner.fetch.downloader import fetch
from engine_provisioner.fetch.part_file import PartFile
from engine_provisioner.fetch.remote_file import RemoteFile
from engine_provisioner.fetch.spans import size_of
from engine_provisioner.fetch.terms import Terms
from engine_provisioner.fetch.web import Web
from engine_provisioner.step_deadline import DISK_STEP_S
from tests.unit.engine_provisioner.file_server import FileServer, serving
from tests.unit.engine_provisioner.gguf_files import gguf

CONTENT = gguf(40_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pieces in parallel, and short pauses."""
    monkeypatch.setattr(downloader, "PARALLEL_FROM", 20_000)
    monkeypatch.setattr(downloader, "PIECE", 8_000)
    monkeypatch.setattr(downloader, "BATCH", 1_000)
    monkeypatch.setattr(backoff, "FIRST_S", 0.001)


def remote(server: FileServer | str, directory: Path, **keys: Any) -> RemoteFile:
    url = server if isinstance(server, str) else server.url
    keys = {"sha256": SHA256, **keys}
    return RemoteFile("model.gguf", url, directory / "key/model.gguf", url.partition("?")[0], directory, **keys)


async def get(remote: RemoteFile, idle_s: float = 10, **terms: Any) -> None:
    async with Web(idle_s) as web:
        await fetch(remote, web, Terms(**terms))


async def failure_of(remote: RemoteFile, idle_s: float = 10) -> ProvisioningFailure:
    with pytest.raises(ProvisioningFailure) as caught:
        await get(remote, idle_s)
    return caught.value


def everything_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


async def test_large_file_comes_in_parallel_ranges(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT)) as server:
        await get(remote(server, tmp_path))
    assert (tmp_path / "key/model.gguf").read_bytes() == CONTENT
    assert len(server.requests) == -(-len(CONTENT) // 8_000)
    assert server.most_at_once > 1
    assert server.sent == len(CONTENT)


async def test_finished_file_is_group_readable_and_leaves_no_parts(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT)) as server:
        await get(remote(server, tmp_path))
    assert (tmp_path / "key/model.gguf").stat().st_mode & 0o777 == 0o640
    assert everything_below(tmp_path) == ["key", "key/model.gguf"]


@pytest.mark.parametrize("cut_after", [700, 5_000])
async def test_link_that_always_breaks_costs_nothing_twice(tmp_path: Path, cut_after: int) -> None:
    async with serving(FileServer(CONTENT, cut_after=cut_after, cuts=None)) as server:
        await get(remote(server, tmp_path))
    assert (tmp_path / "key/model.gguf").read_bytes() == CONTENT
    assert server.sent == len(CONTENT)
    assert all('if-range: "v1"' in request for request in server.requests[1:])


async def test_stalled_connections_are_replaced(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT, silent_after=3_000, silences=3)) as server:
        await get(remote(server, tmp_path), idle_s=0.2)
    assert (tmp_path / "key/model.gguf").read_bytes() == CONTENT
    assert server.sent == len(CONTENT)


async def test_download_resumes_in_a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "TRIES", 1)
    monkeypatch.setattr(downloader, "PARALLEL_FROM", 1 << 30)
    async with serving(FileServer(CONTENT, cut_after=3_000, cuts=1)) as server:
        assert (await failure_of(remote(server, tmp_path))).retry is Retry.BACKOFF
        assert not (tmp_path / "key/model.gguf").exists()
        await get(remote(server, tmp_path))
    assert (tmp_path / "key/model.gguf").read_bytes() == CONTENT
    assert server.sent == len(CONTENT)


async def test_killed_download_keeps_what_was_written(tmp_path: Path) -> None:
    """No checkpoint was written, as if the process was killed: the same boot still has the bytes."""
    wanted = remote("http://127.0.0.1/", tmp_path)
    part = PartFile(wanted.target, wanted.identity, tmp_path)
    part.open()
    part.begin('"v1"', len(CONTENT), True, ())
    part.write(0, CONTENT[:10_000], ())
    part.write(30_000, CONTENT[30_000:], ((0, 10_000),))  # claims itself too
    part.close()
    async with serving(FileServer(CONTENT)) as server:
        await get(replace(wanted, url=server.url))
    assert (tmp_path / "key/model.gguf").read_bytes() == CONTENT
    assert server.sent == len(CONTENT) - 10_000 - (len(CONTENT) - 30_000)


async def test_power_cut_loses_what_was_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("first")
    monkeypatch.setattr("engine_provisioner.fetch.part_file.BOOT_ID", boot)
    part = PartFile(tmp_path / "key/m", "sha256:x", tmp_path)
    part.open()
    part.begin('"v1"', 100, True, ())
    part.write(0, b"a" * 20, ())
    part.checkpoint(((0, 20),))
    part.write(20, b"b" * 20, ((0, 20),))
    part.close()
    assert PartFile(tmp_path / "key/m", "sha256:x", tmp_path).open() == ((0, 40),)
    boot.write_text("second")
    assert PartFile(tmp_path / "key/m", "sha256:x", tmp_path).open() == ((0, 20),)
    assert PartFile(tmp_path / "key/m", "sha256:other", tmp_path).open() == ()


async def test_file_changed_on_the_server_is_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "TRIES", 1)
    async with serving(FileServer(gguf(40_000, seed=2), cut_after=5000)) as server:
        requested = remote(server, tmp_path, sha256=None)
        await failure_of(requested)
        server.content, server.etag = CONTENT, '"v2"'
        monkeypatch.setattr(backoff, "TRIES", 5)
        await get(requested)
    assert requested.target.read_bytes() == CONTENT


@pytest.mark.parametrize("fault", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
async def test_server_without_resume_is_asked_for_the_whole_file(tmp_path: Path, fault: dict[str, Any]) -> None:
    server_with_fault = FileServer(CONTENT, cut_after=5_000, **fault)
    async with serving(server_with_fault) as server:
        await get(remote(server, tmp_path, sha256=None))
    assert (tmp_path / "key/model.gguf").read_bytes() == CONTENT
    assert "range:" not in server.requests[-1].lower() or not server.ranges


async def test_known_checksum_replaces_the_validator(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT, etag=None, cut_after=5_000, cuts=None)) as server:
        await get(remote(server, tmp_path))
    assert server.sent == len(CONTENT)


async def test_file_of_unknown_length_is_complete(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT, ranges=False, content_length=False)) as server:
        await get(remote(server, tmp_path, sha256=None))
    assert (tmp_path / "key/model.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (CONTENT[:-100], "is incomplete: it has"),
        (CONTENT[:60], "has no readable GGUF header"),
        (b"<!DOCTYPE html><p>please log in", "is a web page, not a GGUF file"),
        (b"something else", "is not a GGUF file"),
    ],
)
async def test_damaged_model_is_refused_and_leaves_nothing(tmp_path: Path, content: bytes, words: str) -> None:
    async with serving(FileServer(content)) as server:
        failure = await failure_of(remote(server, tmp_path, sha256=None))
    assert words in failure.message
    assert failure.retry is Retry.REFETCH
    assert everything_below(tmp_path) == []


async def test_web_page_is_refused_at_its_first_bytes(tmp_path: Path) -> None:
    async with serving(FileServer(b"<html>" + b"x" * 10_000_000, ranges=False)) as server:
        await failure_of(remote(server, tmp_path, sha256=None))
    assert server.sent < 9_000_000


async def test_wrong_checksum_leaves_nothing(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT)) as server:
        failure = await failure_of(remote(server, tmp_path, sha256="0" * 64))
    assert failure.retry is Retry.REFETCH
    assert SHA256 in failure.message
    assert everything_below(tmp_path) == []


async def test_size_that_differs_from_the_announced_one_is_refused(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT)) as server:
        assert "but announced 5" in (await failure_of(remote(server, tmp_path, size=5))).message


async def test_silent_server_fails_after_the_idle_limit(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT, silent_after=0)) as server:
        assert "sent nothing for 0.2 s" in (await failure_of(remote(server, tmp_path), idle_s=0.2)).message


@pytest.mark.parametrize(("status", "retry"), [(404, Retry.AFTER_FIX), (403, Retry.AFTER_FIX), (503, Retry.BACKOFF)])
async def test_error_status_is_reported(tmp_path: Path, status: int, retry: Retry) -> None:
    async with serving(FileServer(b"", status=status)) as server:
        failure = await failure_of(remote(server, tmp_path))
    assert str(status) in failure.message
    assert failure.retry is retry
    assert everything_below(tmp_path) == []


async def test_busy_server_is_asked_again(tmp_path: Path) -> None:
    async with serving(FileServer(CONTENT, refuse_once=503, extra={"retry-after": "0"})) as server:
        await get(remote(server, tmp_path))
    assert (tmp_path / "key/model.gguf").read_bytes() == CONTENT


async def test_unreachable_server_is_reported_without_the_query(tmp_path: Path) -> None:
    failure = await failure_of(remote("http://127.0.0.1:1/model.gguf?token=secret", tmp_path))
    assert "cannot download http://127.0.0.1:1/model.gguf" in failure.message
    assert "secret" not in str(failure)


async def test_redirect_to_remote_plain_http_needs_a_checksum(tmp_path: Path) -> None:
    async with serving(FileServer(b"", status=302, location="http://192.0.2.1/m.gguf")) as server:
        failure = await failure_of(remote(server, tmp_path, sha256=None))
    assert "redirects to plain http" in failure.message


async def test_credentials_do_not_follow_a_redirect(tmp_path: Path) -> None:
    async def headers(_renew: bool) -> dict[str, str]:
        return {"authorization": "Bearer secret"}

    front = FileServer(b"", status=302)
    async with serving(FileServer(CONTENT)) as storage, serving(front):
        front.location = storage.url
        await get(remote(front, tmp_path, headers=headers))
    assert all("Bearer secret" in request for request in front.requests)
    assert not any("secret" in request for request in storage.requests)


async def test_refused_credentials_are_renewed_once(tmp_path: Path) -> None:
    asked: list[bool] = []

    async def headers(renew: bool) -> dict[str, str]:
        asked.append(renew)
        return {}

    async with serving(FileServer(CONTENT, refuse_once=401)) as server:
        await get(remote(server, tmp_path, headers=headers))
    assert asked[:2] == [False, True]
    assert asked.count(True) == 1


async def test_full_disk_is_reported_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, Path, int]] = []

    async def make_room(size: int, directory: Path, present: int) -> None:
        asked.append((size, directory, present))

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    async with serving(FileServer(CONTENT)) as server:
        with pytest.raises(ProvisioningFailure, match="are free") as caught:
            await get(remote(server, tmp_path), make_room=make_room)
    assert "Free disk space" in caught.value.hint
    assert asked == [(len(CONTENT), tmp_path / "key", 0)]


async def test_room_is_asked_for_before_a_download_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(size: int, _directory: Path, present: int) -> None:
        raise ProvisioningFailure(f"no room for {size} bytes, {present} of them present")

    monkeypatch.setattr(backoff, "TRIES", 1)
    monkeypatch.setattr(downloader, "PARALLEL_FROM", 1 << 30)
    async with serving(FileServer(CONTENT, cut_after=3_000, cuts=1)) as server:
        await failure_of(remote(server, tmp_path))
        sent = server.sent
        with pytest.raises(ProvisioningFailure, match=f"no room for {len(CONTENT)} bytes, {sent} of them present"):
            await get(remote(server, tmp_path), make_room=refuse)
    assert server.sent == sent


async def test_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a file")
    async with serving(FileServer(CONTENT)) as server:
        failure = await failure_of(remote(server, tmp_path))
    assert f"in {tmp_path}/key: " in failure.message


async def test_progress_counts_bytes_on_disk(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []

    async def on_progress(done: int, total: int | None) -> None:
        seen.append((done, total))

    async with serving(FileServer(CONTENT)) as server:
        await get(remote(server, tmp_path), on_progress=on_progress)
    assert [done for done, _total in seen] == sorted(done for done, _total in seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


async def test_cancelled_download_keeps_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloader, "BATCH", 1 << 30)  # nothing is written until the download ends
    monkeypatch.setattr(downloader, "FLUSH_S", 1e9)
    scope = trio.CancelScope()

    def expect(within_s: float, _step: str) -> None:
        if within_s == 10 + DISK_STEP_S:  # bytes have arrived
            scope.cancel()

    async with serving(FileServer(CONTENT, silent_after=3_500)) as server:
        wanted = remote(server, tmp_path)
        with scope:
            await get(wanted, expect=expect)
    assert scope.cancelled_caught
    assert size_of(PartFile(wanted.target, wanted.identity, tmp_path).open()) > 0


def test_weak_etag_is_not_used_for_resuming() -> None:
    assert strong_validator({"etag": 'W/"1"', "last-modified": "Mon"}) == "Mon"
    assert strong_validator({"etag": '"1"', "last-modified": "Mon"}) == '"1"'
    assert strong_validator({}) is None


@pytest.mark.parametrize("proxy", ["socks5://user:secret@h:1", "htps://user:secret@h:1", "http://user:secret@[::1:1"])
async def test_invalid_proxy_is_reported_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    failure = await failure_of(remote("https://192.0.2.1/m.gguf", tmp_path), 1)
    assert "cannot download" in failure.message
    assert "secret" not in str(failure)


async def test_empty_file_is_no_model(tmp_path: Path) -> None:
    async with serving(FileServer(b"")) as server:
        await failure_of(remote(server, tmp_path, sha256=None))
    assert os.listdir(tmp_path) == []
