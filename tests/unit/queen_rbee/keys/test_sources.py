"""Where keys and their counts come from, and what is wrong with a file is said, not raised."""

from pathlib import Path

import pytest

from llama_orch.contracts.keys import KeySpec
from llama_orch.keys.editing import table
from llama_orch.service.exit import ExitStatus, StartupError
from queen_rbee.keys.account import Totals
from queen_rbee.keys.keyring import Keyring
from queen_rbee.keys.keys_source import KeysSource
from queen_rbee.keys.usage_file import NAME, UsageFile

ALICE, BOB = (KeySpec(name=name, sha256=digit * 64) for name, digit in (("alice", "a"), ("bob", "b")))


def names(keys: Keyring) -> list[str]:
    return [account.name for account in keys.accounts()]


async def test_absent_file_is_no_keys_and_reload_finds_it(tmp_path: Path) -> None:
    keys, path = Keyring(), tmp_path / "keys.toml"
    source = KeysSource(keys, path, {})
    await source.load()
    assert not keys
    path.write_text(table(ALICE))
    assert (await source.reload()).applied == ("keys added: alice",)
    assert (await source.reload()).applied == ()
    path.unlink()
    assert (await source.reload()).applied == ("keys removed: alice",)


async def test_credential_comes_before_file(tmp_path: Path) -> None:
    keys = Keyring()
    for directory, key in ((tmp_path, ALICE), (tmp_path / "credentials", BOB)):
        directory.mkdir(exist_ok=True)
        (directory / "keys.toml").write_text(table(key))
    await KeysSource(keys, tmp_path / "keys.toml", {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}).load()
    assert names(keys) == ["bob"]


async def test_invalid_file_stops_start_and_leaves_keys_at_reload(tmp_path: Path) -> None:
    keys, path = Keyring(), tmp_path / "keys.toml"
    path.write_text(table(ALICE))
    source = KeysSource(keys, path, {})
    await source.load()
    path.write_text(table(ALICE) + table(ALICE))
    outcome = await source.reload()
    assert [problem.split(": ")[0] for problem in outcome.refused] == [f"{path}:5", f"{path}:6"]
    assert names(keys) == ["alice"]
    with pytest.raises(StartupError) as error:
        await KeysSource(Keyring(), path, {}).load()
    assert error.value.status is ExitStatus.CONFIG


async def test_counts_survive_a_restart(tmp_path: Path) -> None:
    keys = Keyring()
    keys.replace([ALICE])
    (account,) = keys.accounts()
    charge = account.charge(40, 10)
    charge.open(0.0)
    charge.end(10, 20, 1.0, started=True)
    await UsageFile(tmp_path).save(keys)
    later = Keyring()
    later.restore_totals(await UsageFile(tmp_path).load())
    later.replace([ALICE.model_copy(update={"tokens_total": 30})])
    assert later.totals() == keys.totals()
    (usage,) = later.usage()
    assert (usage.requests, usage.tokens_in, usage.tokens_out) == (1, 10, 20)


@pytest.mark.parametrize("content", [b"", b"{", b'{"keys": {"a": {"requests": -1}}}', b"\xff"])
async def test_damaged_counts_are_logged_and_begin_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).write_bytes(content)
    assert await UsageFile(tmp_path).load() == {}
    assert "is not counted" in caplog.text


async def test_unchanged_counts_are_not_written(tmp_path: Path) -> None:
    keys = Keyring()
    file = UsageFile(tmp_path)
    await file.save(keys)
    assert not (tmp_path / NAME).exists()
    keys.restore_totals({"alice": Totals(requests=1)})
    await file.save(keys)
    before = (tmp_path / NAME).stat().st_ino
    await file.save(keys)
    assert (tmp_path / NAME).stat().st_ino == before
