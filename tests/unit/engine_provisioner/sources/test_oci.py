"""oci:// models come from registries in all the forms that are in use, with a token where the registry wants one."""

import base64
import hashlib
import json
from pathlib import Path

import pytest

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.fetch import downloader
from engine_provisioner.sources import oci
from engine_provisioner.sources.model_fetcher import Watch
from engine_provisioner.sources.oci_manifest import Layer, choose, first_manifest
from engine_provisioner.sources.source import ModelRequest
from tests.imitations.registry import TokenRegistry
from tests.unit.engine_provisioner.fetching import fetcher
from tests.unit.engine_provisioner.gguf_files import gguf

GGUF = "application/vnd.docker.ai.gguf.v3"
RAW = "application/vnd.cncf.model.weight.v1.raw"


def layer(kind: str, path: str = "", size: int = 10) -> Layer:
    return Layer(kind, f"sha256:{hashlib.sha256(f'{kind}{path}'.encode()).hexdigest()}", size, path)


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        (
            [layer("application/vnd.docker.ai.license"), layer(GGUF), layer("application/vnd.docker.ai.mmproj")],
            [("model", "model.gguf"), ("mmproj", "mmproj.gguf")],
        ),
        (
            [layer(GGUF), layer("application/vnd.docker.ai.gguf.v3.mmproj")],
            [("model", "model.gguf"), ("mmproj", "mmproj.gguf")],
        ),
        (
            [layer(GGUF), layer("application/vnd.docker.ai.chat.template.jinja")],
            [("model", "model.gguf"), ("template", "template.jinja")],
        ),
        (
            [layer(GGUF), layer(GGUF, "x")],
            [("model", "model-00001-of-00002.gguf"), ("shard", "model-00002-of-00002.gguf")],
        ),
        (
            [layer(RAW, "config.json"), layer(RAW, "d/mmproj-f16.gguf"), layer(RAW, "d/tiny.gguf")],
            [("model", "tiny.gguf"), ("mmproj", "mmproj.gguf")],
        ),
        (
            [layer(RAW, "m-00002-of-00002.gguf"), layer(RAW, "m-00001-of-00002.gguf")],
            [("model", "m-00001-of-00002.gguf"), ("shard", "m-00002-of-00002.gguf")],
        ),
        ([layer(RAW, size=5), layer("application/vnd.cncf.model.weight.v1.gguf", size=9)], [("model", "model.gguf")]),
        (
            [layer("application/vnd.ollama.image.projector"), layer("application/vnd.ollama.image.model"),
             layer("application/vnd.ollama.image.template")],
            [("model", "model.gguf"), ("mmproj", "mmproj.gguf")],
        ),
    ],
)  # fmt: skip
def test_layers_are_chosen_by_media_type(layers: list[Layer], chosen: list[tuple[str, str]]) -> None:
    assert [(each.role, each.name) for each in choose(layers, "oci://h/n")] == chosen


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [layer("application/vnd.docker.ai.safetensors")],
        [layer("application/vnd.cncf.model.weight.v1.tar")],
        [layer("application/vnd.cncf.model.weight.v1.tar+gzip")],
    ],
)
def test_model_without_gguf_is_refused(layers: list[Layer]) -> None:
    with pytest.raises(ProvisioningFailure, match="has no GGUF file"):
        choose(layers, "oci://h/n")


def test_index_leads_to_its_first_manifest() -> None:
    digest = "sha256:" + "0" * 64
    entries = [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest}]
    assert first_manifest(json.dumps({"manifests": entries}).encode()) == digest
    assert first_manifest(b'{"layers": []}') is None


@pytest.mark.parametrize(
    "ref",
    [
        "oci://h/n",
        "oci://h:5000/a/b:tag",
        "oci://docker.io/ai/smollm2",
        f"oci://h/n@sha256:{'0' * 64}",
        "oci://[::1]:5/a",
    ],
)
def test_reference_is_accepted(ref: str) -> None:
    oci.check(ref)


@pytest.mark.parametrize(
    "ref", ["oci://", "oci://h", "oci://h/", "oci://h/A", "oci://h/../x", "oci://h/n@sha1:0", "oci://h/n:a/b"]
)
def test_malformed_reference_is_refused(ref: str) -> None:
    with pytest.raises(ValueError, match="must be oci://REGISTRY/NAME"):
        oci.check(ref)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of 40 KB."""
    path = tmp_path / "model"
    path.write_bytes(gguf(40_000))
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


async def obtain(cache_dir: Path, ref: str, **environ: str) -> Path:
    return (await fetcher(cache_dir, environ).obtain(ModelRequest(ref), Watch())).path


def registry_with(model: Path, login: str | None = None, token_uses: int = 1000) -> TokenRegistry:
    return TokenRegistry({GGUF: model}, login, token_uses)


async def test_anonymous_token_is_enough_for_a_public_model(tmp_path: Path, model: Path) -> None:
    async with registry_with(model).serving() as registry:
        ref = f"oci://{registry.host}/org/model"
        path = await obtain(tmp_path / "cache", ref)
        pinned = await obtain(tmp_path / "cache", f"{ref}@{registry.digest}")
    assert content(path) == content(pinned) == content(model)
    assert await obtain(tmp_path / "cache", ref) == path  # without the registry


async def test_token_that_ends_is_renewed(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloader, "PIECE", 8_000)
    async with registry_with(model, token_uses=2).serving() as registry:
        path = await obtain(tmp_path / "cache", f"oci://{registry.host}/org/model")
    assert content(path) == content(model)
    assert len(registry.tokens) == 4  # for the manifest and six ranges


async def test_credentials_are_read_from_the_file_of_podman(tmp_path: Path, model: Path) -> None:
    async with registry_with(model, login="me:secret").serving() as registry:
        ref = f"oci://{registry.host}/org/model"
        with pytest.raises(ProvisioningFailure, match="or the registry denies access") as caught:
            await obtain(tmp_path / "cache", ref)
        assert "set REGISTRY_AUTH_FILE" in caught.value.hint
        auth = base64.b64encode(b"me:secret").decode()
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {f"{registry.host}/org": {"auth": auth}}}))
        await obtain(tmp_path / "cache", ref, REGISTRY_AUTH_FILE=str(tmp_path / "auth.json"))


async def test_manifest_with_another_digest_is_refused(tmp_path: Path, model: Path) -> None:
    async with registry_with(model).serving() as registry:
        digest = registry.digest
        registry.manifest += b" "
        monster = f"oci://{registry.host}/org/model@{digest}"
        with pytest.raises(ProvisioningFailure, match="does not exist"):
            await obtain(tmp_path / "cache", monster)
