"""hf: models come from the hub into its standard cache, and from the cache without the hub."""

import hashlib
from pathlib import Path

import pytest

from engine_provisioner.engine import LocalModel
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.sources.hf import token
from engine_provisioner.sources.model_fetcher import Watch
from engine_provisioner.sources.model_records import ModelRecord
from engine_provisioner.sources.source import ModelRequest
from tests.imitations.hub import COMMIT, Hub
from tests.unit.engine_provisioner.fetching import context, fetcher
from tests.unit.engine_provisioner.gguf_files import gguf

MODEL = gguf(3000)
DIGEST = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """A hub with some repositories."""
    files = {
        "org/tiny": ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "README.md"],
        "org/old": ["m.Q4_0.gguf", "m.Q5_0.gguf"],
        "org/single": ["model.gguf"],
        "org/odd": ["m-Q5_0.gguf", "m-Q6_K.gguf"],
        "org/split": ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"],
        "org/eyes": ["m-Q4_K_M.gguf", "mmproj-F32.gguf", "mmproj-F16.gguf", "other/mmproj-Q4_0.gguf"],
    }
    for repo, names in files.items():
        for name in names:
            path = tmp_path / "hub" / repo / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(MODEL if name.endswith(".gguf") else b"text")
    return Hub(tmp_path / "hub")


class Records:
    """A cache that keeps the records."""

    def __init__(self) -> None:
        self.records: list[ModelRecord] = []

    async def record(self, record: ModelRecord) -> None:
        self.records.append(record)

    async def used(self, ref: str, model: LocalModel) -> None:
        return None

    async def make_room(self, size_bytes: int, directory: Path, present_bytes: int = 0) -> None:
        return None


async def fetched(tmp_path: Path, hub: Hub, ref: str, quant: str | None = None, **environ: str) -> list[Path]:
    """Fetch `ref`; return the paths below the snapshot of its model and projector."""
    variables = {"HF_ENDPOINT": hub.url, **environ}
    model = await fetcher(tmp_path / "cache", variables).obtain(ModelRequest(ref, quant=quant), Watch())
    repo = ref.removeprefix("hf:").partition("@")[0].partition(":")[0].split("/")
    snapshot = tmp_path / f"cache/huggingface/hub/models--{repo[0]}--{repo[1]}/snapshots" / COMMIT
    return [path.relative_to(snapshot) for path in (model.path, model.mmproj) if path]


async def failure_of(tmp_path: Path, hub: Hub, ref: str, **environ: str) -> ProvisioningFailure:
    with pytest.raises(ProvisioningFailure) as caught:
        await fetched(tmp_path, hub, ref, **environ)
    return caught.value


@pytest.mark.parametrize(
    ("ref", "quant", "name"),
    [
        ("hf:org/tiny", None, "m-Q4_K_M.gguf"),
        ("hf:org/tiny:q8_0", None, "m-Q8_0.gguf"),
        ("hf:org/tiny", "Q8_0", "m-Q8_0.gguf"),
        ("hf:org/tiny/m-Q8_0.gguf", None, "m-Q8_0.gguf"),
        ("hf:org/tiny@main", None, "m-Q4_K_M.gguf"),
        (f"hf:org/tiny:Q8_0@{COMMIT}", None, "m-Q8_0.gguf"),
        ("hf:org/old", None, "m.Q4_0.gguf"),
        ("hf:org/single", None, "model.gguf"),
        ("hf:org/split", None, "Q8_0/m-Q8_0-00001-of-00002.gguf"),
    ],
)
async def test_reference_selects_a_file(tmp_path: Path, hub: Hub, ref: str, quant: str | None, name: str) -> None:
    async with hub.serving():
        assert await fetched(tmp_path, hub, ref, quant) == [Path(name)]


async def test_cache_has_the_standard_layout(tmp_path: Path, hub: Hub) -> None:
    async with hub.serving():
        await fetched(tmp_path, hub, "hf:org/tiny")
    repo = tmp_path / "cache/huggingface/hub/models--org--tiny"
    assert (repo / "refs/main").read_text() == COMMIT
    assert (repo / "blobs" / DIGEST).read_bytes() == MODEL
    assert (repo / f"snapshots/{COMMIT}/m-Q4_K_M.gguf").readlink() == Path(f"../../blobs/{DIGEST}")
    assert [path.name for path in (repo / "blobs").iterdir()] == [DIGEST]


async def test_all_shards_and_projector_are_fetched_and_recorded(tmp_path: Path, hub: Hub) -> None:
    cache = Records()
    async with hub.serving():
        fetch = fetcher(tmp_path, {"HF_ENDPOINT": hub.url}, cache)
        await fetch.obtain(ModelRequest("hf:org/split"), Watch())
        model = await fetch.obtain(ModelRequest("hf:org/eyes"), Watch())
        await fetch.obtain(ModelRequest("hf:org/eyes"), Watch())
    roles = [[(file.path.name, file.role) for file in record.files] for record in cache.records]
    assert roles == [
        [("m-Q8_0-00001-of-00002.gguf", "model"), ("m-Q8_0-00002-of-00002.gguf", "shard")],
        [("m-Q4_K_M.gguf", "model"), ("mmproj-F16.gguf", "mmproj")],
    ]
    assert cache.records[0].revision == COMMIT
    assert {file.digest for record in cache.records for file in record.files} == {f"sha256:{DIGEST}"}
    assert all(file.path.exists() for record in cache.records for file in record.files)
    assert model.mmproj is not None
    assert model.mmproj.name == "mmproj-F16.gguf"
    assert model.digest == f"sha256:{DIGEST}"


async def test_model_in_cache_needs_no_hub(tmp_path: Path, hub: Hub) -> None:
    async with hub.serving():
        first = await fetched(tmp_path, hub, "hf:org/split")
    assert await fetched(tmp_path, hub, "hf:org/split", HF_HUB_OFFLINE="1") == first


async def test_refresh_asks_the_hub_for_a_newer_commit(tmp_path: Path, hub: Hub) -> None:
    async with hub.serving():
        fetch = fetcher(tmp_path, {"HF_ENDPOINT": hub.url})
        await fetch.obtain(ModelRequest("hf:org/tiny"), Watch())
        hub.commit = "f" * 40
        kept = await fetch.obtain(ModelRequest("hf:org/tiny"), Watch())
        newer = await fetch.obtain(ModelRequest("hf:org/tiny", refresh=True), Watch())
        assert len(hub.storage.requests) == 1  # the same blob
    assert kept.path.parent.name == COMMIT
    assert newer.path.parent.name == "f" * 40


async def test_offline_model_that_is_not_in_cache_is_refused(tmp_path: Path, hub: Hub) -> None:
    failure = await failure_of(tmp_path, hub, "hf:org/tiny", HF_HUB_OFFLINE="YES", HF_ENDPOINT="http://127.0.0.1:1")
    assert "HF_HUB_OFFLINE is set" in failure.message


async def test_model_fetched_by_another_tool_is_used(tmp_path: Path, hub: Hub) -> None:
    repo = tmp_path / "cache/huggingface/hub/models--org--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "refs/main").write_text(COMMIT)
    (repo / "blobs" / DIGEST).write_bytes(MODEL)
    (repo / "snapshots" / COMMIT).mkdir(parents=True)
    (repo / "snapshots" / COMMIT / "m-Q8_0.gguf").symlink_to(f"../../blobs/{DIGEST}")
    assert await fetched(tmp_path, hub, "hf:org/tiny", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://h") == [
        Path("m-Q8_0.gguf")
    ]


async def test_damaged_blob_is_removed_and_fetched_again(tmp_path: Path, hub: Hub) -> None:
    async with hub.serving():
        await fetched(tmp_path, hub, "hf:org/tiny")
        blob = tmp_path / "cache/huggingface/hub/models--org--tiny/blobs" / DIGEST
        blob.write_bytes(MODEL[:-1] + b"x")
        failure = await failure_of(tmp_path, hub, "hf:org/tiny")
        assert failure.retry is Retry.REFETCH
        assert "but the hub announces" in failure.message
        await fetched(tmp_path, hub, "hf:org/tiny")
    assert blob.read_bytes() == MODEL


@pytest.mark.parametrize(
    ("ref", "message", "hint"),
    [
        ("hf:org/none", "does not exist, or is private", "set HF_TOKEN in"),
        ("hf:org/tiny:Q2_K", "no model with the quantization Q2_K", "Available: m-Q4_K_M.gguf, m-Q8_0.gguf"),
        ("hf:org/odd", "several models, but none with Q4_K_M", "Available: m-Q5_0.gguf, m-Q6_K.gguf"),
        ("hf:org/tiny/x.gguf", "no file x.gguf", "Available: m-Q4_K_M.gguf"),
        ("hf:org/tiny@v2", "no revision v2", "/branches"),
    ],
)
async def test_wrong_reference_is_explained(tmp_path: Path, hub: Hub, ref: str, message: str, hint: str) -> None:
    async with hub.serving():
        failure = await failure_of(tmp_path, hub, ref)
    assert message in failure.message
    assert hint in failure.hint
    assert failure.retry is Retry.AFTER_FIX


async def test_gated_model_needs_a_token_that_is_not_shown(tmp_path: Path, hub: Hub) -> None:
    hub.token = "hf_secret"
    async with hub.serving():
        failure = await failure_of(tmp_path, hub, "hf:org/tiny")
        assert "is gated, and no token is set" in failure.message
        assert "set HF_TOKEN in /etc/llama-orch/engine-provisioner.env" in failure.hint
        failure = await failure_of(tmp_path, hub, "hf:org/tiny", HF_TOKEN="hf_wrong")
        assert "the token is not valid" in failure.message
        hub.gated.add("org/tiny")
        failure = await failure_of(tmp_path, hub, "hf:org/tiny", HF_TOKEN="hf_secret")
        assert "the token has no access" in failure.message
        hub.gated.clear()
        await fetched(tmp_path, hub, "hf:org/tiny", HF_TOKEN="hf_secret")
    assert hub.storage.requests
    assert not any("authorization" in request.headers for request in hub.storage.requests)


def test_token_of_the_credential_comes_first(tmp_path: Path) -> None:
    (tmp_path / "hf-token").write_text("hf_secret\n")
    variables = {"HF_TOKEN": "hf_other", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert token(context(tmp_path, variables)) == "hf_secret"
    (tmp_path / "hf-token").write_text("\n")  # as the unit has it without the file
    assert token(context(tmp_path, variables)) == "hf_other"


async def test_token_is_read_from_its_file(tmp_path: Path, hub: Hub) -> None:
    hub.token = "hf_secret"
    (tmp_path / "token").write_text("hf_secret\n")
    async with hub.serving():
        await fetched(tmp_path, hub, "hf:org/tiny", HF_TOKEN_PATH=str(tmp_path / "token"))


async def test_cache_of_other_tools_is_used_if_set(tmp_path: Path, hub: Hub) -> None:
    async with hub.serving():
        variables = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "shared")}
        model = await fetcher(tmp_path / "cache", variables).obtain(ModelRequest("hf:org/tiny"), Watch())
    assert model.path.is_relative_to(tmp_path / "shared/models--org--tiny")
