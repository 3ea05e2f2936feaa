"""The model cache on a real disk."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from engine_provisioner.cache import model_cache
from engine_provisioner.cache.model_cache import ModelInUse, UnknownModel
from engine_provisioner.cache.records import ModelUse, key_of
from engine_provisioner.engine import LocalModel
from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.sources.model_records import ModelRecord, StoredFile
from tests.unit.engine_provisioner.cache.disk import (
    BEGIN,
    cache_in,
    download,
    hub_file,
    hub_record,
    listed,
    url,
)


async def test_recorded_model_is_listed_after_restart(tmp_path: Path) -> None:
    record = download(tmp_path, "a")
    await cache_in(tmp_path).record(record)
    (used,) = await cache_in(tmp_path).models()
    assert used.model.record == record
    assert (used.model.pinned, used.model.recorded, used.model.owned, used.pools) == (False, True, True, ())


async def test_record_has_documented_name_and_fields(tmp_path: Path) -> None:
    record = download(tmp_path, "a")
    await cache_in(tmp_path).record(record)
    (path,) = (tmp_path / "index").iterdir()
    assert path.name == f"{key_of(record.ref)}.json"
    document = json.loads(path.read_text())
    assert set(document) == {"ref", "revision", "files", "fetched_at", "used_at", "pinned"}
    assert set(document["files"][0]) == {"path", "size_bytes", "digest", "role"}


async def test_secrets_of_url_are_not_stored(tmp_path: Path) -> None:
    cache, secret = cache_in(tmp_path), "https://me:hunter2@example.org/m.gguf?token=hunter3"
    await cache.record(ModelRecord(secret, None, download(tmp_path, "m").files, BEGIN))
    assert "hunter" not in "".join(path.read_text() for path in (tmp_path / "index").iterdir())
    assert await listed(cache) == ["https://example.org/m.gguf"]
    await cache.pin("https://example.org/m.gguf", True)
    await cache.remove(secret)
    assert await listed(cache) == []


async def test_touch_moves_model_to_front(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    for name in ("a", "b"):
        await cache.record(download(tmp_path, name))
    assert await listed(cache) == [url("b"), url("a")]
    await cache.touch(url("a"))
    assert await listed(cache) == [url("a"), url("b")]
    await cache.touch(url("unknown"))


async def test_use_records_model_once(tmp_path: Path) -> None:
    cache, record = cache_in(tmp_path), download(tmp_path, "a")
    local = LocalModel("a", record.files[0].path, 1000, "sha256:aa")
    await cache.used(record.ref, local)
    await cache.pin(record.ref, True)
    await cache.used(record.ref, local)
    (used,) = await cache.models()
    assert used.model.record.files == (StoredFile(local.path, 1000, "sha256:aa", "model"),)
    assert used.model.pinned


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"ref": 1}', b"\xff", b"x" * (2 << 20)])
async def test_damaged_record_is_dropped_and_model_found(tmp_path: Path, content: bytes) -> None:
    cache, record = cache_in(tmp_path), download(tmp_path, "a")
    await cache.record(record)
    (path,) = (tmp_path / "index").iterdir()
    path.write_bytes(content)
    (used,) = await cache.models()
    assert (used.model.record.ref, used.model.recorded) == (f"file:{record.files[0].path}", False)
    assert not path.exists()
    await cache.used(record.ref, LocalModel("a", record.files[0].path, 1000))
    assert await listed(cache) == [record.ref]


async def test_record_goes_with_its_deleted_file(tmp_path: Path) -> None:
    cache, record = cache_in(tmp_path), download(tmp_path, "a")
    await cache.record(record)
    record.files[0].path.unlink()
    assert await listed(cache) == []
    assert list((tmp_path / "index").iterdir()) == []


async def test_record_survives_disk_that_is_not_mounted(tmp_path: Path) -> None:
    cache, record = cache_in(tmp_path), download(tmp_path / "disk", "a")
    await cache.record(record)
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    assert await listed(cache) == []
    (tmp_path / "unmounted").rename(tmp_path / "disk")
    assert await listed(cache) == [record.ref]


async def test_models_without_record_are_found(tmp_path: Path) -> None:
    path = download(tmp_path, "a").files[0].path
    (path.parent / ".b.gguf.part").write_bytes(b"half")
    hub_file(tmp_path, "1" * 40, "q4.gguf", b"weights")
    hub_file(tmp_path, "1" * 40, "README.md", b"text")
    models = {used.model.record.ref: used.model for used in await cache_in(tmp_path).models()}
    assert set(models) == {f"file:{path}", "hf:org/name"}
    assert models["hf:org/name"].record.revision == "1" * 40
    assert [file.digest is not None for file in models["hf:org/name"].record.files] == [True]


async def test_roles_follow_names_of_files(tmp_path: Path) -> None:
    for name in ("mmproj-f16.gguf", "m-00002-of-00002.gguf", "m-00001-of-00002.gguf"):
        hub_file(tmp_path, "1" * 40, name, name.encode())
    (used,) = await cache_in(tmp_path).models()
    roles = [(file.path.name, file.role) for file in used.model.record.files]
    assert roles == [
        ("m-00001-of-00002.gguf", "model"),
        ("m-00002-of-00002.gguf", "shard"),
        ("mmproj-f16.gguf", "mmproj"),
    ]


async def test_empty_and_foreign_directories_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "huggingface/hub/datasets--a--b").mkdir(parents=True)
    (tmp_path / "huggingface/hub/models--a--b/snapshots/x").mkdir(parents=True)
    (tmp_path / "models/abc").mkdir(parents=True)
    (tmp_path / "models/file").write_text("")
    assert await listed(cache_in(tmp_path)) == []
    assert await listed(cache_in(tmp_path / "absent")) == []


async def test_removed_model_leaves_nothing(tmp_path: Path) -> None:
    cache, record = cache_in(tmp_path), download(tmp_path, "a")
    await cache.record(record)
    assert await cache.remove(record.ref) == 1000
    assert list((tmp_path / "models").iterdir()) == list((tmp_path / "index").iterdir()) == []


async def test_unknown_model_cannot_be_removed_or_pinned(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    with pytest.raises(UnknownModel):
        await cache.remove(url("a"))
    with pytest.raises(UnknownModel):
        await cache.pin(url("a"), True)


async def test_used_model_is_removed_only_by_force(tmp_path: Path) -> None:
    record = download(tmp_path, "a")
    cache = cache_in(tmp_path, None, ModelUse("default", record.ref))
    await cache.record(record)
    with pytest.raises(ModelInUse, match="default"):
        await cache.remove(record.ref)
    assert await listed(cache) == [record.ref]
    await cache.remove(record.ref, force=True)
    assert await listed(cache) == []


async def test_unrecorded_model_of_pool_is_known_by_path_or_repository(tmp_path: Path) -> None:
    path = download(tmp_path, "a").files[0].path
    hub_file(tmp_path, "1" * 40, "q4.gguf", b"weights")
    uses = (ModelUse("one", "https://other", path), ModelUse("two", "hf:Org/Name:Q4_0@main"))
    pools = {used.model.record.ref: used.pools for used in await cache_in(tmp_path, None, *uses).models()}
    assert pools == {f"file:{path}": ("one",), "hf:org/name": ("two",)}


async def test_own_files_of_user_are_never_removed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(b"precious")
    cache = cache_in(tmp_path / "cache", 5)
    record = ModelRecord(f"file:{mine}", None, (StoredFile(mine, 8, None, "model"),), BEGIN)
    await cache.record(record)
    await cache.make_room(5, tmp_path / "cache/models")
    assert await listed(cache) == [record.ref]
    assert await cache.remove(record.ref, force=True) == 0
    assert mine.read_bytes() == b"precious"


async def test_blob_goes_with_last_snapshot_that_links_to_it(tmp_path: Path) -> None:
    old, new = (hub_file(tmp_path, digit * 40, "q4.gguf", b"weights") for digit in "12")
    other = hub_file(tmp_path, "2" * 40, "q8.gguf", b"other weights")
    cache = cache_in(tmp_path)
    await cache.record(hub_record(old, "hf:org/name:Q4_0@old"))
    await cache.record(hub_record(new, "hf:org/name:Q4_0"))
    assert await cache.remove("hf:org/name:Q4_0@old") == 0
    assert not old.parent.exists()
    assert new.read_bytes() == b"weights"
    assert await cache.remove("hf:org/name:Q4_0") == len(b"weights")
    assert other.read_bytes() == b"other weights"
    (left,) = await cache.models()
    await cache.remove(left.model.record.ref)
    assert list((tmp_path / "huggingface/hub").iterdir()) == []


async def test_link_out_of_hub_is_removed_alone(tmp_path: Path) -> None:
    path = hub_file(tmp_path, "1" * 40, "q4.gguf", b"weights")
    outside = tmp_path / "outside.gguf"
    outside.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(outside)
    await cache_in(tmp_path).remove("hf:org/name")
    assert outside.read_bytes() == b"precious"


async def test_unfinished_download_of_repository_stays(tmp_path: Path) -> None:
    path = hub_file(tmp_path, "1" * 40, "q4.gguf", b"weights")
    partial = path.parents[2] / "blobs/abc.incomplete"
    partial.write_bytes(b"half")
    await cache_in(tmp_path).remove("hf:org/name")
    assert partial.exists()


async def test_models_that_share_a_file_keep_it(tmp_path: Path) -> None:
    record = download(tmp_path, "a")
    cache = cache_in(tmp_path)
    await cache.record(record)
    await cache.record(ModelRecord(url("mirror"), None, record.files, BEGIN))
    assert await cache.remove(record.ref) == 0
    assert await listed(cache) == [url("mirror")]
    assert await cache.remove(url("mirror")) == 1000


async def test_room_is_made_by_least_recently_used(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, 3000)
    for name in ("a", "b", "c"):
        await cache.record(download(tmp_path, name))
    await cache.touch(url("a"))
    await cache.make_room(1000, tmp_path / "models")
    assert await listed(cache) == [url("a"), url("c")]


async def test_pinned_and_used_models_make_no_room(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, 2000, ModelUse("default", url("a")))
    for name in ("a", "b"):
        await cache.record(download(tmp_path, name))
    await cache.pin(url("b"), True)
    with pytest.raises(ProvisioningFailure, match="ENGINE_PROVISIONER_CACHE_LIMIT") as refused:
        await cache.make_room(1000, tmp_path / "models")
    assert "orchctl models --disk" in refused.value.hint
    assert len(await listed(cache)) == 2
    await cache.pin(url("b"), False)
    await cache.make_room(1000, tmp_path / "models")
    assert await listed(cache) == [url("a")]


async def test_unfinished_download_counts_for_the_limit_in_full(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, 2000, ModelUse("default", url("a")))
    await cache.record(download(tmp_path, "a"))
    await cache.make_room(1000, tmp_path / "models", 900)
    with pytest.raises(ProvisioningFailure, match="ENGINE_PROVISIONER_CACHE_LIMIT"):
        await cache.make_room(1100, tmp_path / "models", 900)


async def test_recording_enforces_limit_but_keeps_new_model(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, 1500)
    await cache.record(download(tmp_path, "a"))
    await cache.record(download(tmp_path, "b"))
    assert await listed(cache) == [url("b")]


async def test_full_disk_evicts_without_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_in(tmp_path)
    for name in ("a", "b"):
        await cache.record(download(tmp_path, name))
    free = model_cache.SPARE_BYTES + 100
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free))
    await cache.make_room(1000, tmp_path / "models" / "not-there-yet")
    assert await listed(cache) == [url("b")]
    with pytest.raises(ProvisioningFailure, match="are free"):
        await cache.make_room(1 << 40, tmp_path / "models")
    assert await listed(cache) == [url("b")]


async def test_unwritable_cache_does_not_stop_use(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("not a directory")
    record = download(tmp_path, "a")
    await cache_in(tmp_path).used(record.ref, LocalModel("a", record.files[0].path, 1000))
    with pytest.raises(OSError, match="index"):
        await cache_in(tmp_path).record(record)


async def test_concurrent_calls_do_not_disturb_each_other(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, 5000)
    records = [download(tmp_path, f"m{number}") for number in range(12)]
    async with trio.open_nursery() as nursery:
        for record in records:
            nursery.start_soon(cache.record, record)
            nursery.start_soon(cache.touch, record.ref)
    sizes = [used.model.size_bytes for used in await cache.models()]
    assert sum(sizes) <= 5000
    assert {path.stem for path in (tmp_path / "index").iterdir()} == {
        used.model.key for used in await cache.models() if used.model.recorded
    }
    assert not [name for name in os.listdir(tmp_path / "index") if name.startswith(".")]
