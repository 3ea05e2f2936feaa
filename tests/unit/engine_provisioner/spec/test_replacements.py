"""A model that a reload has given to a pool is in force until the file's own model is edited."""

from pathlib import Path

import pytest

from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.replacements import PoolsSource, Replacements, with_model
from tests.unit.engine_provisioner.pools import pool

OTHER = "file:/srv/other.gguf"


def refs(pools: list[Pool]) -> list[str | None]:
    return [pool.model.ref if pool.model else None for pool in pools]


@pytest.fixture
def records(tmp_path: Path) -> Replacements:
    return Replacements(tmp_path / "models")


def test_replaced_model_is_in_force(records: Replacements) -> None:
    records.save(pool(), OTHER)
    assert refs(records.applied([pool(), pool(id="b")])) == [OTHER, "file:/srv/model.gguf"]
    assert refs(records.applied([pool(slots=2)])) == [OTHER]


def test_record_can_be_read_by_the_daemon_only(records: Replacements, tmp_path: Path) -> None:
    records.save(pool(), OTHER)
    assert (tmp_path / "models/default.json").stat().st_mode & 0o777 == 0o600


def test_edited_model_counts_and_ends_the_replacement(records: Replacements) -> None:
    records.save(pool(), OTHER)
    assert refs(records.applied([pool(model="file:/srv/new.gguf")])) == ["file:/srv/new.gguf"]
    assert refs(records.applied([pool()])) == ["file:/srv/model.gguf"]


def test_model_of_the_file_ends_the_replacement(records: Replacements, tmp_path: Path) -> None:
    records.save(pool(), OTHER)
    records.save(pool(), "file:/srv/model.gguf")
    assert refs(records.applied([pool()])) == ["file:/srv/model.gguf"]
    assert [*(tmp_path / "models").iterdir()] == []


def test_record_of_a_removed_pool_is_removed(records: Replacements, tmp_path: Path) -> None:
    records.save(pool(), OTHER)
    assert records.applied([]) == []
    assert [*(tmp_path / "models").iterdir()] == []


def test_damaged_record_is_ignored(records: Replacements, tmp_path: Path) -> None:
    records.save(pool(), OTHER)
    (tmp_path / "models/default.json").write_text("{")
    assert refs(records.applied([pool()])) == ["file:/srv/model.gguf"]


def test_checksum_belongs_to_the_replaced_model() -> None:
    checked = pool(model={"ref": "file:/srv/model.gguf", "checksum": "sha256:" + "0" * 64, "cache_dir": "/srv/cache"})
    model = with_model(checked, OTHER).model
    assert model is not None
    assert (model.ref, model.checksum, model.cache_dir) == (OTHER, None, "/srv/cache")


def test_model_that_contradicts_the_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="quant: is for hf: models only"):
        with_model(pool(model="hf:org/name", quant="Q4_K_M"), OTHER)


def test_source_tells_the_file_from_what_is_in_force(records: Replacements, tmp_path: Path) -> None:
    path = tmp_path / "pools.toml"
    path.write_text(
        '[[pools]]\nid = "default"\nmodel = "file:/srv/model.gguf"\n'
        '[pools.provisioning]\nmode = "package"\nname = "llama.cpp"\nallow_package_installs = true\n'
    )
    source = PoolsSource(path, records)
    written = source.configured("default")
    assert written is not None
    records.save(written, OTHER)
    assert refs(source.read() or []) == [OTHER]
    assert refs([written]) == ["file:/srv/model.gguf"]
