"""orchctl key: prints a secret once, keeps the file's mode and text, and has queen-rbee reload it."""

import json
import os
from pathlib import Path

import pytest

from llama_orch.keys.keys_file import parse
from llama_orch.keys.secret_keys import digest
from tests.unit.orchctl.running import Result, run
from tests.unit.orchctl.scripted_queen import error, reply, serve

RELOAD, USAGE = "POST /v2/reload", "GET /v2/usage"


def orchctl(directory: Path, *words: str, url: str = "http://127.0.0.1:1") -> Result:
    return run(*words, ORCHESTRATORD_KEYS_FILE=str(directory / "keys.toml"), ORCHESTRATORD_URL=url)


def used(*names: str) -> bytes:
    return reply(200, {"keys": [{"key": name, "requests": 7, "tokens_in": 30, "tokens_out": 20} for name in names]})


def test_add_prints_secret_once_and_writes_its_digest(tmp_path: Path) -> None:
    result = orchctl(tmp_path, "key", "add", "alice", "--models", "tiny,small-*", "--weight", "3")
    secret = result.out.strip()
    content = (tmp_path / "keys.toml").read_bytes()
    (key,) = parse(content, Path("keys.toml"))
    assert (key.name, key.sha256, key.models, key.weight) == ("alice", digest(secret), ("tiny", "small-*"), 3)
    assert secret.encode() not in content
    assert (tmp_path / "keys.toml").stat().st_mode & 0o777 == 0o640
    assert secret not in orchctl(tmp_path, "key", "list", "-o", "json").out


def test_added_key_is_reloaded_and_looked_for(tmp_path: Path) -> None:
    answers = {RELOAD: [reply(200, {"applied": [], "needs_restart": []})], USAGE: [used("alice")]}
    with serve(answers, tmp_path / "queen.sock") as daemon:
        result = orchctl(tmp_path, "key", "add", "alice", url=daemon.url)
        assert [request.line for request in daemon.requests] == [RELOAD, USAGE]
    assert result.status == 0


def test_other_file_of_daemon_is_noticed(tmp_path: Path) -> None:
    answers = {RELOAD: [reply(200, {"applied": [], "needs_restart": []})], USAGE: [used()]}
    with serve(answers, tmp_path / "queen.sock") as daemon:
        result = orchctl(tmp_path, "key", "add", "alice", url=daemon.url)
    assert result.status == 78
    assert "reads its keys from elsewhere" in result.err


def test_refused_reload_is_an_error(tmp_path: Path) -> None:
    answers = {RELOAD: [error(409, "INVALID_PARAMS", "keys.toml:3: no")]}
    with serve(answers, tmp_path / "queen.sock") as daemon:
        result = orchctl(tmp_path, "key", "add", "alice", url=daemon.url)
    assert (result.status, "keys.toml:3: no" in result.err) == (65, True)


def test_mode_and_other_text_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(f'# mine\n[[keys]]\nname = "bob" # the builder\nsha256 = "{"0" * 64}"\n')
    path.chmod(0o600)
    orchctl(tmp_path, "key", "add", "alice")
    assert path.read_text().startswith('# mine\n[[keys]]\nname = "bob" # the builder\n')
    assert path.stat().st_mode & 0o777 == 0o600
    assert orchctl(tmp_path, "key", "revoke", "alice").status == 0
    assert [key.name for key in parse(path.read_bytes(), path)] == ["bob"]


def test_second_key_of_a_name_is_refused(tmp_path: Path) -> None:
    orchctl(tmp_path, "key", "add", "alice")
    before = (tmp_path / "keys.toml").read_text()
    result = orchctl(tmp_path, "key", "add", "alice")
    assert (result.status, result.out) == (65, "")
    assert "there is a key alice already" in result.err
    assert (tmp_path / "keys.toml").read_text() == before


def test_unknown_key_is_not_revoked(tmp_path: Path) -> None:
    orchctl(tmp_path, "key", "add", "alice")
    result = orchctl(tmp_path, "key", "revoke", "bob")
    assert (result.status, "Keys: alice." in result.err) == (66, True)


def test_inline_tables_are_left_to_the_editor(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(f'keys = [{{name = "a", sha256 = "{"0" * 64}"}}, {{name = "b", sha256 = "{"1" * 64}"}}]\n')
    before = path.read_text()
    result = orchctl(tmp_path, "key", "revoke", "a")
    assert (result.status, path.read_text()) == (65, before)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("a b",), "name: must consist of"),
        (("a", "--weight", "0"), "weight: must be at least 1"),
        (("a", "--endpoints", "chats"), "endpoints: must be"),
        (("a", "--expires", "soon"), "invalid time"),
    ],
)
def test_invalid_option_writes_nothing(tmp_path: Path, words: tuple[str, ...], problem: str) -> None:
    result = orchctl(tmp_path, "key", "add", *words)
    assert (result.status, result.out) == (64, "")
    assert problem in result.err
    assert not (tmp_path / "keys.toml").exists()


def test_invalid_file_is_shown_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text('[[keys]]\nname = "a"\nsha256 = "x"\n')
    for words in (("list",), ("add", "b"), ("revoke", "a")):
        result = orchctl(tmp_path, "key", *words)
        assert (result.status, "keys.toml:3: keys[0].sha256" in result.err) == (78, True)


def test_other_machine_is_named(tmp_path: Path) -> None:
    result = orchctl(tmp_path / "absent", "key", "add", "a")
    assert (result.status, "on the machine of queen-rbee" in result.err) == (73, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file_needs_root(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("")
    (tmp_path / "keys.toml").chmod(0)
    result = orchctl(tmp_path, "key", "list")
    assert (result.status, "sudo orchctl" in result.err) == (77, True)


def test_json_has_name_and_secret(tmp_path: Path) -> None:
    made = json.loads(orchctl(tmp_path, "--json", "key", "add", "alice").out)
    assert made["name"] == "alice"
    assert digest(made["secret"]) in (tmp_path / "keys.toml").read_text()


def test_usage_shows_each_key() -> None:
    with serve({USAGE: [used("alice", "bob")]}) as queen:
        result = run("usage", "--url", queen.url)
        names = run("usage", "--url", queen.url, "-o", "name")
    assert names.out == "alice\nbob\n"
    assert result.out.splitlines()[1].split() == ["alice", "7", "0", "0", "30", "20", "0", "-"]
