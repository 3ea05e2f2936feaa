"""orchctl pool: what engine-provisioner drafts is written, and nothing else; errors say which command to run."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from llama_orch.contracts.pool_files import PoolFile
from orchctl.errors import CommandError
from orchctl.machine.provisioner import write_drop_in
from orchctl.machine.reference import is_reference, model_reference
from orchctl.provisioner import HANDOFF_VARIABLE
from tests.unit.orchctl.running import Result, run
from tests.unit.orchctl.scripted_queen import ScriptedQueen, error, reply, serve

DRAFT, RELOAD, LIST = "POST /v2/pools/draft", "POST /v2/pools/reload", "GET /v2/pools"
TEXT = '[[pools]]\nid = "a"\n'


def listed(*pools: dict[str, object]) -> bytes:
    return reply(200, {"directory": "/x", "pools": [*pools]})


def configured(path: Path, **more: object) -> dict[str, object]:
    return {"pool_id": "a", "path": str(path), "only": True, "engine": "llamacpp", "mode": "package", **more}


def drafted(path: Path, content: str | None = TEXT) -> bytes:
    return reply(200, {"pool_id": "a", "path": str(path), "content": content, "note": "engine: x"})


@contextmanager
def machine(directory: Path, **answers: bytes) -> Iterator[ScriptedQueen]:
    names = {"draft": DRAFT, "reload": RELOAD, "listed": LIST}
    script = {names[name]: [answer] for name, answer in answers.items()}
    script.setdefault(RELOAD, [reply(200, {})])
    script.setdefault(LIST, [listed()])
    with serve(script, directory / "engine-provisioner.sock") as daemon:
        yield daemon


def orchctl(directory: Path, *words: str) -> Result:
    return run(*words, **{HANDOFF_VARIABLE: str(directory / "engines")})


def test_add_writes_what_was_drafted_and_reloads(tmp_path: Path) -> None:
    path = tmp_path / "pools.d/a.toml"
    words = ("--slots", "2", "--devices", "0,1", "--keep-alive", "-1", "--pinned")
    with machine(tmp_path, draft=drafted(path)) as daemon:
        result = orchctl(tmp_path, "pool", "add", "a", "--model", "https://h/a.gguf", *words)
        keys = {"slots": 2, "devices": [0, 1], "keep_alive": -1, "pinned": True, "preload": False}
        assert daemon.bodies(DRAFT) == [{"pool_id": "a", "model": "https://h/a.gguf", "keys": keys}]
        assert [request.line for request in daemon.requests][-1] == RELOAD
    assert (result.status, result.out) == (0, f"pool a is configured in {path} (engine: x)\n")
    assert path.read_text() == TEXT
    assert path.stat().st_mode & 0o777 == 0o640


def test_pool_can_be_put_on_the_cpu(tmp_path: Path) -> None:
    with machine(tmp_path, draft=drafted(tmp_path / "pools.d/a.toml")) as daemon:
        orchctl(tmp_path, "pool", "add", "a", "--model", "https://h/a.gguf", "--devices", "cpu")
        assert daemon.bodies(DRAFT)[0]["keys"]["devices"] == "cpu"


def test_refused_draft_writes_nothing(tmp_path: Path) -> None:
    refusal = error(409, "INVALID_PARAMS", "pools files refused:\n  a.toml:3: pools[0].slots: 0 is out of range")
    with machine(tmp_path, draft=refusal):
        result = orchctl(tmp_path, "pool", "add", "a", "--model", "https://h/a.gguf")
    assert result.status == 65
    assert "a.toml:3: pools[0].slots: 0 is out of range" in result.err
    assert not (tmp_path / "pools.d").exists()


def test_existing_pool_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pools.d/a.toml"
    with machine(tmp_path, draft=drafted(path), listed=listed(configured(path))):
        result = orchctl(tmp_path, "pool", "add", "a", "--model", "https://h/a.gguf")
    assert result.status == 65
    assert "orchctl pool rm a" in result.err
    assert not path.exists()


def test_same_pool_again_changes_nothing(tmp_path: Path) -> None:
    with machine(tmp_path, draft=drafted(tmp_path / "pools.d/a.toml", None)) as daemon:
        result = orchctl(tmp_path, "pool", "add", "a", "--model", "https://h/a.gguf")
        assert [request.line for request in daemon.requests] == [DRAFT]
    assert (result.status, "already" in result.out) == (0, True)


def test_remove_deletes_the_file_and_reloads(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(TEXT)
    with machine(tmp_path, listed=listed(configured(path))) as daemon:
        result = orchctl(tmp_path, "pool", "rm", "a", "--json")
        assert daemon.requests_for(RELOAD)
    assert (result.status, json.loads(result.out)["pool_id"]) == (0, "a")
    assert not path.exists()


def test_remove_restores_the_file_if_the_rest_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(TEXT)
    refusal = error(409, "INVALID_PARAMS", "pools files refused")
    with machine(tmp_path, listed=listed(configured(path)), reload=refusal):
        assert orchctl(tmp_path, "pool", "rm", "a").status == 65
    assert path.read_text() == TEXT


def test_pool_in_a_shared_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "pools.toml"
    path.write_text(TEXT)
    with machine(tmp_path, listed=listed(configured(path, only=False))):
        result = orchctl(tmp_path, "pool", "rm", "a")
        assert orchctl(tmp_path, "pool", "rm", "other").status == 66
        assert TEXT not in orchctl(tmp_path, "pool", "show", "a").out
    assert (result.status, str(path) in result.err, path.exists()) == (65, True, True)


def test_show_prints_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(TEXT)
    with machine(tmp_path, listed=listed(configured(path, state="ready"))):
        assert TEXT in orchctl(tmp_path, "pool", "show", "a").out
        assert "ready" in orchctl(tmp_path, "pool").out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write files for other groups")
def test_drop_in_is_readable_for_the_daemons_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchctl.machine.provisioner.grp.getgrnam", lambda _name: SimpleNamespace(gr_gid=12345))
    path = tmp_path / "x.d/a.toml"
    write_drop_in(PoolFile(pool_id="a", path=str(path), content=TEXT))
    assert (path.stat().st_gid, path.stat().st_mode & 0o777) == (12345, 0o640)


def test_credentials_of_urls_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "pools.d/a.toml"
    text = '[[pools]]\nid = "a"\nmodel = "https://me:hunter2@h/a.gguf?signature=hunter2"\n'
    ref = "https://me:hunter2@h/a.gguf?signature=hunter2"
    with machine(tmp_path, draft=drafted(path, text)):
        added = orchctl(tmp_path, "pool", "add", "a", "--model", ref, "--json")
    (other := tmp_path / "other").mkdir()
    with machine(other, listed=listed(configured(path))):
        shown = orchctl(other, "pool", "show", "a")
    assert path.read_text() == text
    assert "hunter2" not in added.out + added.err + shown.out + shown.err
    assert 'model = "https://***@h/a.gguf?***"' in shown.out


def test_daemon_that_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orchctl.provisioner.SOCKET", tmp_path / "none.sock")
    result = orchctl(tmp_path, "pool")
    assert result.status == 69
    assert "engine-provisioner does not run on this machine" in result.err
    assert "systemctl start llama-orch.target" in result.err


def test_denied_write_names_the_command_for_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_arguments: object, **_keywords: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("orchctl.machine.provisioner.durable.replace", denied)
    monkeypatch.setattr("sys.argv", ["orchctl", "pool", "add", "a b"])
    with pytest.raises(CommandError) as refused:
        write_drop_in(PoolFile(pool_id="a", path=str(tmp_path / "x.d/a.toml"), content=TEXT))
    assert refused.value.hint == "Run: sudo orchctl pool add 'a b'"


@pytest.mark.parametrize("name", ["etc/a.toml", "x.d/b.toml", "x.d/a.conf"])
def test_only_drop_ins_are_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match="is not a drop-in file"):
        write_drop_in(PoolFile(pool_id="a", path=str(tmp_path / name), content=TEXT))
    assert not (tmp_path / name).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own files for others")
def test_directory_of_another_user_is_not_written(tmp_path: Path) -> None:
    directory = tmp_path / "x.d"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    with pytest.raises(CommandError, match="is not a drop-in file"):
        write_drop_in(PoolFile(pool_id="a", path=str(directory / "a.toml"), content=TEXT))


def test_references_and_names_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.gguf").touch()
    assert model_reference("m.gguf") == model_reference(f"file:{tmp_path}/m.gguf") == f"file:{tmp_path}/m.gguf"
    assert model_reference("hf:org/model") == "hf:org/model"
    assert [is_reference(text) for text in ("default", "tiny", "m.gguf", "./m", "hf:a/b")] == [
        False,
        False,
        *[True] * 3,
    ]
    with pytest.raises(CommandError, match="there is no model file"):
        model_reference("none.gguf")
