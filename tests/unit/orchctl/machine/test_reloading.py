"""orchctl reload and purge: a model is fetched where the pool is, and a purge is confirmed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchctl.commands import operations
from tests.unit.orchctl.cluster import OPERATION
from tests.unit.orchctl.running import Result, run
from tests.unit.orchctl.scripted_queen import ScriptedQueen, error, reply, serve
from tests.unit.orchctl.terminal import terminal

RUNNING = {**OPERATION, "kind": "reload", "node_id": None, "message": "staging: downloading"}
DONE = {**RUNNING, "state": "done", "message": "its model is m"}
RELOAD, PURGE, POLL = "POST /v2/pools/default/reload", "POST /v2/pools/default/purge", "GET /v2/operations/op-1"
REF = "https://example.org/m.gguf"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "POLL_S", 0.0)


@contextmanager
def provisioner(directory: Path, *refs: str, pool_id: str = "default") -> Iterator[ScriptedQueen]:
    """Run an engine-provisioner with these models on the disk, which fetches others."""
    pool = {"pool_id": pool_id, "path": "/x.toml", "engine": "llamacpp", "mode": "binary"}
    moment = "2030-01-01T00:00:00Z"
    model: dict[str, object] = {"files": [], "size_bytes": 1, "fetched_at": moment, "used_at": moment, "pools": []}
    models = [{**model, "ref": ref, "pinned": False, "recorded": True, "owned": True} for ref in refs]
    pulled = {"id": "p1", "kind": "pull", "subject": REF, "state": "done", "created_at": moment, "progress": {}}
    answers = {
        "GET /v2/pools": [reply(200, {"directory": "/d", "pools": [pool]})],
        "GET /v2/models": [reply(200, {"models": models, "count": len(models), "total_bytes": 0, "limit_bytes": None})],
        "POST /v2/models/pull": [reply(202, {"operation_id": "p1"})],
        "GET /v2/operations/p1": [reply(200, pulled)],
    }
    with serve(answers, path=directory / "engine-provisioner.sock") as running:
        yield running


def orchctl(directory: Path, queen: ScriptedQueen, *words: str) -> Result:
    return run(*words, "--url", queen.url, ENGINE_PROVISIONER_HANDOFF_DIR=str(directory / "engines"))


@contextmanager
def queen() -> Iterator[ScriptedQueen]:
    with serve({RELOAD: [reply(202, RUNNING)], PURGE: [reply(202, RUNNING)], POLL: [reply(200, DONE)]}) as running:
        yield running


def test_reload_is_followed_to_its_end(tmp_path: Path) -> None:
    with queen() as running:
        result = orchctl(tmp_path, running, "reload", "default")
        assert running.requests_for(RELOAD)[0].body in (b"", b"{}")
    assert (result.status, result.out) == (0, "reload default: done: its model is m\n")


def test_missing_model_is_fetched_first(tmp_path: Path) -> None:
    with provisioner(tmp_path) as local, queen() as running:
        result = orchctl(tmp_path, running, "reload", "default", "--model", REF)
        assert local.bodies("POST /v2/models/pull") == [{"ref": REF}]
        assert running.bodies(RELOAD) == [{"new_model_ref": REF}]
    assert result.status == 0, result.err


def test_model_on_the_disk_is_not_fetched(tmp_path: Path) -> None:
    with provisioner(tmp_path, REF) as local, queen() as running:
        assert orchctl(tmp_path, running, "reload", "default", "--model", REF).status == 0
        assert local.bodies("POST /v2/models/pull") == []


def test_model_of_a_pool_elsewhere_is_left_to_its_machine(tmp_path: Path) -> None:
    refusal = error(409, "INVALID_PARAMS", "the model is not on the disk of the machine of pool default")
    with provisioner(tmp_path, pool_id="another") as local, serve({RELOAD: [refusal]}) as running:
        result = orchctl(tmp_path, running, "reload", "default", "--model", REF)
        assert local.bodies("POST /v2/models/pull") == []
    assert result.status != 0
    assert "not on the disk" in result.err


def test_purge_needs_a_yes(tmp_path: Path) -> None:
    with queen() as running:
        refused = orchctl(tmp_path, running, "purge", "default")
        assert running.requests == []
        assert orchctl(tmp_path, running, "purge", "default", "--yes").status == 0
    assert refused.status == 64
    assert "--yes" in refused.err


@pytest.mark.parametrize(("answer", "purges"), [(b"y\n", 1), (b"\n", 0)])
def test_purge_asks_on_a_terminal(answer: bytes, purges: int) -> None:
    with queen() as running, terminal("purge", "default", "--url", running.url) as shell:
        shell.wait_for("[y/N]")
        shell.type(answer)
        shell.end()
        assert len(running.requests_for(PURGE)) == purges
