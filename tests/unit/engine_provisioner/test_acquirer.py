"""What a pool needs comes onto the machine once, whoever asks for it, and what is not built yet says so."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
import trio

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.sources.https import stored_at
from engine_provisioner.sources.source import ModelRequest
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.step_deadline import StepDeadline
from tests.unit.engine_provisioner.fetching import acquirer, context
from tests.unit.engine_provisioner.file_server import FileServer, serving
from tests.unit.engine_provisioner.gguf_files import gguf
from tests.unit.engine_provisioner.pools import pool

GGUF = gguf(128)


async def untold(_text: str) -> None:
    return None


def checksum(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def archive() -> bytes:
    body, member = io.BytesIO(), tarfile.TarInfo("x/bin/llama-server")
    member.mode, member.size = 0o755, 3
    with tarfile.open(fileobj=body, mode="w:gz") as tar:
        tar.addfile(member, io.BytesIO(b"#!\n"))
    return body.getvalue()


def served(server: FileServer, **keys: Any) -> Pool:
    return pool(model={"ref": server.url, "checksum": checksum(server.content)}, **keys)


async def test_model_of_two_pools_is_fetched_once(tmp_path: Path) -> None:
    shared = acquirer(tmp_path)
    found = []

    async def get(each: Pool) -> None:
        found.append(await shared.model(each, StepDeadline(each.id), untold))

    async with serving(FileServer(GGUF)) as server:
        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c"):
                nursery.start_soon(get, served(server, id=name))
        assert len(server.requests) == 1
    assert len({model.path for model in found}) == 1
    assert found[0].digest == checksum(GGUF)
    assert found[0].size_bytes == len(GGUF)


async def test_pool_fetches_itself_after_another_failed(tmp_path: Path) -> None:
    shared, results = acquirer(tmp_path), []

    async def get(name: str) -> None:
        try:
            results.append((await shared.model(served(server, id=name), StepDeadline(name), untold)).size_bytes)
        except ProvisioningFailure:
            results.append(0)

    async with serving(FileServer(GGUF, refuse_once=404)) as server, trio.open_nursery() as nursery:
        nursery.start_soon(get, "a")
        nursery.start_soon(get, "b")
    assert sorted(results) == [0, len(GGUF)]


async def test_fetched_model_is_reused_after_a_restart(tmp_path: Path) -> None:
    async with serving(FileServer(GGUF)) as server:
        for _ in range(2):
            await acquirer(tmp_path).model(served(server), StepDeadline("default"), untold)
        assert len(server.requests) == 1


async def test_html_page_instead_of_a_model_is_refused_and_deleted(tmp_path: Path) -> None:
    async with serving(FileServer(b"<html>please log in</html>")) as server:
        with pytest.raises(ProvisioningFailure, match="is a web page, not a GGUF file") as caught:
            await acquirer(tmp_path).model(pool(model=server.url), StepDeadline("default"), untold)
    assert caught.value.retry is Retry.REFETCH
    assert not stored_at(ModelRequest(server.url), context(tmp_path)).exists()


async def test_engine_is_fetched_once_and_its_archive_removed(tmp_path: Path) -> None:
    content = archive()
    async with serving(FileServer(content)) as server:
        how = {"mode": "binary", "url": server.url, "checksum": checksum(content), "allow_binary_downloads": True}
        for _ in range(2):
            program = await acquirer(tmp_path).program(pool(provisioning=how), StepDeadline("default"), untold)
        assert len(server.requests) == 1
    assert program.file.name == "llama-server"
    assert not list((tmp_path / "downloads").iterdir())


async def test_local_archive_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a b.tar.gz"
    path.write_bytes(archive())
    url = f"file://{path}".replace(" ", "%20")
    how = {"mode": "binary", "url": url, "checksum": checksum(archive()), "allow_binary_downloads": True}
    await acquirer(tmp_path / "cache").program(pool(provisioning=how), StepDeadline("default"), untold)
    assert path.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), (b"", "is not a GGUF file"), (b"GGML old", "is not a GGUF file")],
)
async def test_invalid_model_file_is_named_and_watched(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProvisioningFailure, match=words) as caught:
        await acquirer(tmp_path).model(pool(model=f"file:{path}"), StepDeadline("default"), untold)
    assert caught.value.watch == (path,)


async def test_engine_that_cannot_be_started_requires_mode_external(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningFailure, match="engine vllm cannot be started by engine-provisioner"):
        await acquirer(tmp_path).program(pool(engine="vllm"), StepDeadline("default"), untold)


async def test_missing_llama_server_hints_at_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    how = {"mode": "package", "name": "llama.cpp", "allow_package_installs": True}
    with pytest.raises(ProvisioningFailure, match=r"apt install llama\.cpp"):
        await acquirer(tmp_path).program(pool(provisioning=how), StepDeadline("default"), untold)
    (tmp_path / "llama-server").write_text("#!/bin/sh\n")
    (tmp_path / "llama-server").chmod(0o755)
    program = await acquirer(tmp_path).program(pool(provisioning=how), StepDeadline("default"), untold)
    assert program.argv == (str(tmp_path / "llama-server"),)


@pytest.mark.parametrize(
    "ref", ["https://h/..", "https://h/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "https://h/.hidden", "https://h"]
)
def test_no_url_escapes_the_model_directory(tmp_path: Path, ref: str) -> None:
    path = stored_at(ModelRequest(ref), context(tmp_path))
    assert path.parent.parent == tmp_path / "models"
    assert not path.name.startswith(".")


async def test_downloaded_bytes_are_counted_per_pool(tmp_path: Path) -> None:
    counted: list[tuple[str, int]] = []
    shared = acquirer(tmp_path, lambda pool_id, count: counted.append((pool_id, count)))
    async with serving(FileServer(GGUF)) as server:
        await shared.model(served(server, id="a"), StepDeadline("a"), untold)
        await shared.model(served(server, id="b"), StepDeadline("b"), untold)
    assert {pool_id for pool_id, _count in counted} == {"a"}
    assert sum(count for _pool_id, count in counted) == len(GGUF)
