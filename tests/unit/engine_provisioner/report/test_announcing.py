"""What is announced of an engine, of ours and of somebody else's, is what pool-managerd can take."""

from datetime import UTC, datetime
from pathlib import Path

from engine_provisioner import clearing
from engine_provisioner.report import announcing
from engine_provisioner.report.announcing import Announcement, file_of, handoff, write
from engine_provisioner.supervise.external_pool import announcement
from llama_orch.contracts.handoff import Handoff
from llama_orch.engines.kind import Description
from tests.unit.engine_provisioner.pools import MODEL, pool

OURS = Announcement(
    "default", "llamacpp", "1", "binary", "http://127.0.0.1:18080", 2, 512, "0,1", MODEL, ("-c", "1"), 77, "u.service"
)
EXTERNAL = {"mode": "external", "url": "http://127.0.0.1:9000"}


def test_a_handoff_says_all_that_the_contract_names() -> None:
    document = handoff(OURS, datetime(2025, 1, 1, tzinfo=UTC)).model_dump(mode="json", by_alias=True, exclude_none=True)
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


def test_the_file_has_its_contracted_name_mode_and_content(tmp_path: Path) -> None:
    document = write(tmp_path, OURS)
    (path,) = tmp_path.iterdir()
    assert path.name == "default-r0.json" == document.file_name
    assert Handoff.model_validate_json(path.read_bytes()) == document
    assert path.stat().st_mode & 0o777 == 0o640


def test_of_an_external_engine_its_own_word_counts_more_than_the_file() -> None:
    said = announcement(
        pool(provisioning=EXTERNAL, slots=1), EXTERNAL["url"], Description(("m",), 2048, slots=4, version="b1")
    )
    assert (said.engine_version, said.slots, said.ctx) == ("b1", 4, 2048)
    assert said.model == "file:/srv/model.gguf"
    handoff(said, datetime.now(UTC))


def test_an_external_engine_that_says_nothing_is_announced_all_the_same() -> None:
    said = announcement(pool(provisioning=EXTERNAL, slots=3, model=None), EXTERNAL["url"], Description(()))
    assert (said.engine_version, said.slots, said.model) == ("unknown", 3, None)
    handoff(said, datetime.now(UTC))


def test_at_a_start_old_announcements_are_withdrawn_and_others_files_left_alone(tmp_path: Path) -> None:
    (tmp_path / "status").mkdir()
    for name in ("kept", "gone"):
        (tmp_path / f"status/{name}.json").write_text("{}")
        file_of(tmp_path, name).write_text("{}")
    (tmp_path / "foreign-r0.json").write_text("{}")
    assert clearing.withdraw_all(tmp_path, ["kept", "new"]) == ["gone"]
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["foreign-r0.json", "kept.json"]


def test_withdrawing_what_was_taken_is_no_error(tmp_path: Path) -> None:
    announcing.withdraw(tmp_path, "default")
