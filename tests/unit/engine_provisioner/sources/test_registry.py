"""A registered model source is accepted in the pools file and obtained without further changes."""

from pathlib import Path

import pytest

from engine_provisioner.fetch.remote_file import RemoteFile
from engine_provisioner.fetch.web import Web
from engine_provisioner.sources import registry
from engine_provisioner.sources.model_fetcher import Watch
from engine_provisioner.sources.source import ModelRequest, Resolved, Source, SourceContext, Stored, StoredPart
from engine_provisioner.spec.pools_file import PoolsFileError, parse
from tests.unit.engine_provisioner.fetching import fetcher
from tests.unit.engine_provisioner.file_server import FileServer, serving
from tests.unit.engine_provisioner.gguf_files import gguf

PROVISIONING = '{{ mode = "package", name = "llama.cpp", allow_package_installs = true }}'
POOL = f'[[pools]]\nid = "a"\nmodel = "{{}}"\nprovisioning = {PROVISIONING}\n'


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A server of the source dummy://, which is registered."""
    found = FileServer(gguf())

    def check(ref: str) -> None:
        if not ref.endswith(".gguf"):
            raise ValueError("must be dummy://NAME.gguf")

    def path(request: ModelRequest, context: SourceContext) -> Path:
        return context.cache_dir / "dummies" / request.ref.rpartition("/")[2]

    def stored(request: ModelRequest, context: SourceContext) -> Stored | None:
        there = path(request, context)
        return Stored("1", (StoredPart(there),)) if there.exists() else None

    async def resolve(request: ModelRequest, context: SourceContext, _web: Web) -> Resolved:
        target = path(request, context)
        return Resolved(request.ref, "1", (RemoteFile("m", found.url, target, request.ref, context.cache_dir),))

    dummy = Source(("dummy://",), "dummy://", check, stored, resolve)
    monkeypatch.setattr(registry, "SOURCES", [*registry.SOURCES, dummy])
    return found


async def test_registered_source_is_validated(server: FileServer) -> None:
    assert parse(POOL.format("dummy://m.gguf").encode(), Path("pools.toml"))
    with pytest.raises(PoolsFileError, match=r"must be dummy://NAME\.gguf"):
        parse(POOL.format("dummy://m").encode(), Path("pools.toml"))
    with pytest.raises(PoolsFileError, match=r"must begin with file:/, https://, hf:, s3://, oci:// or dummy://"):
        parse(POOL.format("other://m").encode(), Path("pools.toml"))


async def test_registered_source_is_obtained(server: FileServer, tmp_path: Path) -> None:
    async with serving(server):
        model = await fetcher(tmp_path).obtain(ModelRequest("dummy://m.gguf"), Watch())
    assert model.path == tmp_path / "dummies/m.gguf"
    assert model.path.read_bytes() == server.content
