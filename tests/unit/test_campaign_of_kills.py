"""The campaign of kills notices what must not be: stray engines, pools without a cause, damaged files."""

from typing import Any

import pytest

from tests.bench.kills.invariants import damaged, unsettled

UNIT = "llama-engine@a.service"
DAEMONS = {"queen-rbee": "active", "pool-managerd": "active", "engine-provisioner": "active"}
SEEN: dict[str, Any] = {
    "units": {**DAEMONS, UNIT: "active", "llama-engine@b.service": "inactive"},
    "processes": [{"pid": 7, "kind": "engine", "unit": UNIT}],
    "handoffs": [],
}
POOLS = [{"pool_id": "a", "state": "ready"}, {"pool_id": "b", "state": "unloaded"}]
BOTH = frozenset({"a", "b"})


def test_settled_machine_has_nothing_wrong() -> None:
    assert list(unsettled(SEEN, POOLS, BOTH)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"processes": []}, "is active without an engine process"),
        ({"processes": [*SEEN["processes"], {"pid": 8, "kind": "engine", "unit": UNIT}]}, "2 processes engine of"),
        ({"processes": [*SEEN["processes"], {"pid": 8, "kind": "engine", "unit": None}]}, "of no unit"),
        ({"processes": [*SEEN["processes"], {"pid": 8, "kind": "conmon", "unit": None}]}, "conmon of no unit"),
        ({"units": {**SEEN["units"], "queen-rbee": "failed"}}, "queen-rbee is failed"),
        ({"units": {**SEEN["units"], UNIT: "deactivating"}}, "is deactivating"),
        ({"handoffs": ["b-r0.json"]}, "handoff files are of"),
    ],
)
def test_stray_processes_and_units_are_noticed(change: dict[str, Any], words: str) -> None:
    assert words in "\n".join(unsettled({**SEEN, **change}, POOLS, BOTH))


@pytest.mark.parametrize("state", [{"state": "starting"}, {"state": "failed"}, {"state": "unloaded"}])
def test_pool_must_settle_with_a_cause_and_match_its_unit(state: dict[str, Any]) -> None:
    assert list(unsettled(SEEN, [{"pool_id": "a", **state}, POOLS[1]], BOTH)) != []
    assert list(unsettled(SEEN, POOLS[:1], BOTH)) == ["queen-rbee does not know pool b"]


def test_damaged_files_are_noticed() -> None:
    whole: dict[str, Any] = {"size_bytes": 5, "digest": f"sha256:{'1' * 64}"}
    record: dict[str, Any] = {"ref": "r", "path": "/m", **whole, "found": whole}
    seen: dict[str, Any] = {
        "units": SEEN["units"],
        "containers": [],
        "records": [record],
        "blobs": {f"/b/{'1' * 64}": whole},
        "models": {"/k/m.gguf": whole},
    }
    assert list(damaged(seen, {"m.gguf": whole["digest"]})) == []
    assert len([*damaged({**seen, "containers": ["llama-engine-b"]}, {})]) == 1
    half = {**whole, "size_bytes": 3}
    assert len([*damaged({**seen, "records": [{**record, "found": None}, {**record, "found": half}]}, {})]) == 2
    assert (
        len([*damaged({**seen, "blobs": {f"/b/{'2' * 64}": whole}, "models": {"/k/m.gguf": None}}, {"m.gguf": "x"})])
        == 2
    )
