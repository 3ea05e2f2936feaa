"""A download arrives whole and as it should be, is taken up where it broke off, and fails in words."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine_provisioner.acquire.downloads import Download, fetch, how_far
from engine_provisioner.acquire.partial_file import strong_validator
from engine_provisioner.failures import ProvisioningFailure, Retry
from tests.unit.engine_provisioner.file_server import Store, serving

CONTENT = b"GGUF" + bytes(range(256)) * 64
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


async def nothing(_there: int, _total: int | None) -> None:
    return None


def download(store: Store, directory: Path, checksum: str | None = CHECKSUM, idle_s: float = 10) -> Download:
    return Download(store.url, directory / "key/model.gguf", checksum, idle_s)


async def failure_of(wanted: Download) -> ProvisioningFailure:
    try:
        await fetch(wanted, nothing)
    except ProvisioningFailure as failure:
        return failure
    pytest.fail("the download was to fail")


async def test_a_file_arrives_whole_readable_by_the_group_and_nothing_else_is_left(tmp_path: Path) -> None:
    async with serving(Store(CONTENT)) as store:
        wanted = download(store, tmp_path)
        await fetch(wanted, nothing)
    assert wanted.target.read_bytes() == CONTENT
    assert wanted.target.stat().st_mode & 0o777 == 0o640
    assert os.listdir(wanted.target.parent) == ["model.gguf"]


async def test_it_is_told_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []

    async def on_bytes(there: int, total: int | None) -> None:
        told.append((there, total))

    async with serving(Store(CONTENT)) as store:
        await fetch(download(store, tmp_path), on_bytes)
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert how_far(1 << 30, 4 << 30) == "25 % of 4.0 GiB"


async def test_a_broken_download_is_taken_up_where_it_broke_off(tmp_path: Path) -> None:
    async with serving(Store(CONTENT, cut_after=5000)) as store:
        wanted = download(store, tmp_path)
        assert (await failure_of(wanted)).retry is Retry.BACKOFF
        assert not wanted.target.exists()
        await fetch(wanted, nothing)
        assert "range: bytes=5000-" in store.requests[1].lower()
    assert wanted.target.read_bytes() == CONTENT


async def test_a_file_that_changed_meanwhile_is_fetched_anew(tmp_path: Path) -> None:
    async with serving(Store(b"GGUF the old one" * 1000, cut_after=5000)) as store:
        wanted = download(store, tmp_path)
        await failure_of(wanted)
        store.content, store.etag = CONTENT, '"v2"'
        await fetch(wanted, nothing)
    assert wanted.target.read_bytes() == CONTENT


@pytest.mark.parametrize("fault", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
async def test_a_server_that_cannot_resume_is_asked_for_the_whole(tmp_path: Path, fault: dict[str, object]) -> None:
    async with serving(replace(Store(CONTENT, cut_after=5000), **fault)) as store:  # type: ignore[arg-type]
        wanted = download(store, tmp_path)
        await failure_of(wanted)
        await fetch(wanted, nothing)
    assert wanted.target.read_bytes() == CONTENT


async def test_a_wrong_checksum_leaves_nothing_and_is_not_tried_again_soon(tmp_path: Path) -> None:
    async with serving(Store(CONTENT)) as store:
        wanted = download(store, tmp_path, "sha256:" + "0" * 64)
        failure = await failure_of(wanted)
    assert failure.retry is Retry.COSTLY
    assert CHECKSUM in failure.message
    assert os.listdir(wanted.target.parent) == []


async def test_a_silent_server_is_given_up_after_the_idle_limit(tmp_path: Path) -> None:
    async with serving(Store(CONTENT, silent_after=100)) as store:
        assert "silent for 0.2 s" in (await failure_of(download(store, tmp_path, idle_s=0.2))).message


@pytest.mark.parametrize(("status", "retry"), [(404, Retry.MENDING), (403, Retry.MENDING), (503, Retry.BACKOFF)])
async def test_a_refusing_server_is_named_with_its_answer(tmp_path: Path, status: int, retry: Retry) -> None:
    async with serving(Store(b"", status=status)) as store:
        failure = await failure_of(download(store, tmp_path))
    assert str(status) in failure.message
    assert failure.retry is retry


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    failure = await failure_of(Download("http://127.0.0.1:1/model.gguf?token=secret", tmp_path / "m", None, 1))
    assert "http://127.0.0.1:1/model.gguf cannot be fetched" in failure.message
    assert "secret" not in str(failure)


async def test_a_redirect_to_plain_http_elsewhere_is_refused_without_a_checksum(tmp_path: Path) -> None:
    async with serving(Store(b"", status=302)) as store:
        store.location = store.url.replace("127.0.0.1", "localhost.invalid.")
        failure = await failure_of(download(store, tmp_path, None))
    assert "cannot be fetched" in failure.message or "plain http" in failure.message


async def test_a_full_disk_is_seen_before_the_download_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    async with serving(Store(CONTENT)) as store:
        failure = await failure_of(download(store, tmp_path))
    assert "are free" in failure.message
    assert "Make room" in failure.hint


async def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a file")
    async with serving(Store(CONTENT)) as store:
        failure = await failure_of(download(store, tmp_path))
    assert f"cannot be stored in {tmp_path}/key" in failure.message


def test_a_weak_etag_is_no_proof_that_a_file_is_the_same() -> None:
    assert strong_validator({"etag": 'W/"1"', "last-modified": "Mon"}) == "Mon"
    assert strong_validator({"etag": '"1"', "last-modified": "Mon"}) == '"1"'
    assert strong_validator({}) is None


@pytest.mark.parametrize("proxy", ["socks5://user:secret@h:1", "htps://user:secret@h:1", "http://user:secret@[::1:1"])
async def test_unusable_proxy_is_a_failure_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    download = Download("https://192.0.2.1/m.gguf", tmp_path / "m.gguf", None, 1.0)
    with pytest.raises(ProvisioningFailure, match="cannot be fetched") as caught:
        await fetch(download, nothing)
    assert "secret" not in str(caught.value)
