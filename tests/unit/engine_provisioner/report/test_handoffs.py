"""Handoff files of managed and external engines follow the contract."""

from datetime import UTC, datetime
from pathlib import Path

from engine_provisioner import cleanup
from engine_provisioner.report import handoffs
from engine_provisioner.report.handoffs import Announcement, document_of, path_of, write
from engine_provisioner.supervise.external_pool import announcement
from llama_orch.contracts.handoff import Handoff
from llama_orch.engines.kind import Description
from tests.unit.engine_provisioner.pools import MODEL, pool

MANAGED = Announcement(
    "default", "llamacpp", "1", "binary", "http://127.0.0.1:18080", 2, 512, "0,1", MODEL, ("-c", "1"), 77, "u.service"
)
EXTERNAL = {"mode": "external", "url": "http://127.0.0.1:9000"}


def test_document_has_all_fields_of_the_contract() -> None:
    document = document_of(MANAGED, datetime(2025, 1, 1, tzinfo=UTC)).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    assert document == {
        "schema": 1,
        "pool_id": "default",
        "replica_id": "r0",
        "engine": "llamacpp",
        "engine_version": "1",
        "provisioning_mode": "binary",
        "url": "http://127.0.0.1:18080",
        "model": {"id": "file:/srv/model.gguf", "path": "/srv/model.gguf", "ctx_max": 512, "size_bytes": 1000},
        "device_mask": "0,1",
        "slots_total": 2,
        "slots_free": 2,
        "flags": ["-c", "1"],
        "pid": 77,
        "unit": "u.service",
        "created_at": "2025-01-01T00:00:00Z",
    }


def test_file_has_the_name_mode_and_content_of_the_contract(tmp_path: Path) -> None:
    document = write(tmp_path, MANAGED)
    (path,) = tmp_path.iterdir()
    assert path.name == "default-r0.json" == document.file_name
    assert Handoff.model_validate_json(path.read_bytes()) == document
    assert path.stat().st_mode & 0o777 == 0o640


def test_external_engine_overrides_the_pools_file() -> None:
    description = Description(("m",), 2048, slots=4, version="b1")
    announced = announcement(pool(provisioning=EXTERNAL, slots=1), EXTERNAL["url"], description)
    assert (announced.engine_version, announced.slots, announced.ctx) == ("b1", 4, 2048)
    assert announced.model == "file:/srv/model.gguf"
    document_of(announced, datetime.now(UTC))


def test_external_engine_without_description_is_announced() -> None:
    announced = announcement(pool(provisioning=EXTERNAL, slots=3, model=None), EXTERNAL["url"], Description(()))
    assert (announced.engine_version, announced.slots, announced.model) == ("unknown", 3, None)
    document_of(announced, datetime.now(UTC))


def test_start_removes_stale_files_and_keeps_foreign_ones(tmp_path: Path) -> None:
    (tmp_path / "status").mkdir()
    for name in ("configured", "removed"):
        (tmp_path / f"status/{name}.json").write_text("{}")
        path_of(tmp_path, name).write_text("{}")
    (tmp_path / "foreign-r0.json").write_text("{}")
    assert cleanup.withdraw_all(tmp_path, ["configured", "new"]) == ["removed"]
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["configured.json", "foreign-r0.json"]


def test_removing_an_absent_handoff_file_is_no_error(tmp_path: Path) -> None:
    handoffs.remove(tmp_path, "default")
