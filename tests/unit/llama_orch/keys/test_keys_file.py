"""keys.toml: what is valid, and every problem with its line; changes leave the rest of the text as it is."""

import tomllib
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.keys import KeySpec
from llama_orch.keys.editing import table, with_key, without_table
from llama_orch.keys.keys_file import FILE_LIMIT, KEYS_LIMIT, KeysFileError, parse, read
from llama_orch.keys.secret_keys import PREFIX, digest, new_secret

PATH = Path("keys.toml")
DIGEST = "0123456789abcdef" * 4
COUNTS = st.none() | st.integers(1, 10**12)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", fullmatch=True)
KEYS = st.builds(
    KeySpec,
    name=NAMES,
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    models=st.none() | st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=3).map(tuple),
    endpoints=st.none() | st.just(("chat", "tasks")),
    priority=st.sampled_from(["interactive", "batch"]),
    weight=st.integers(1, 1000),
    concurrency=st.none() | st.integers(1, 100_000),
    requests_per_minute=COUNTS,
    tokens_per_minute=COUNTS,
    tokens_per_day=COUNTS,
    tokens_total=COUNTS,
    expires=st.none()
    | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(
        lambda moment: moment.replace(microsecond=0)
    ),
)


def problems(text: str) -> list[str]:
    with pytest.raises(KeysFileError) as error:
        parse(text.encode(), PATH)
    return error.value.problems


def test_empty_file_has_no_keys() -> None:
    assert parse(b"# nothing\n", PATH) == ()


def test_missing_file_is_no_file(tmp_path: Path) -> None:
    assert read(tmp_path / "keys.toml") is None


def test_date_means_its_beginning_in_utc() -> None:
    text = f'[[keys]]\nname = "a"\nsha256 = "{DIGEST}"\nexpires = 2027-01-31\n'
    assert parse(text.encode(), PATH)[0].ends == datetime(2027, 1, 31, tzinfo=UTC)


def test_every_problem_has_its_line() -> None:
    text = f"""\
[[keys]]
name = "a b"
sha256 = "{DIGEST}"
weight = 0
[[keys]]
name = "c"
sha256 = "secret-in-clear-text"
modells = []
[[keys]]
name = "c"
sha256 = "{DIGEST}"
[[keys]]
endpoints = ["chats"]
"""
    found = problems(text)
    assert [each.split(": ")[0] for each in found] == [
        "keys.toml:2",
        "keys.toml:4",
        "keys.toml:7",
        "keys.toml:8",
        "keys.toml:10",
        "keys.toml:11",
        "keys.toml:12",
        "keys.toml:12",
        "keys.toml:13",
    ]
    assert "keys.toml:4: keys[0].weight: must be at least 1" in found
    assert not any("secret-in-clear-text" in each or DIGEST in each for each in found)
    assert any("is already that of the key on line 6" in each for each in found)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"[[keys]\n", "keys.toml:1: is not valid TOML"),
        (b"a = 1\n\xff", "keys.toml:2: is not UTF-8 text"),
        (b"keys = " + b"[" * 20_000, "keys.toml"),
        (b"keys = 1\n", "keys.toml:1: keys: must be"),
    ],
)
def test_broken_file_is_a_problem_and_no_traceback(raw: bytes, problem: str) -> None:
    with pytest.raises(KeysFileError) as error:
        parse(raw, PATH)
    assert error.value.problems[0].startswith(problem)


def test_number_of_keys_and_size_are_bounded(tmp_path: Path) -> None:
    many = "".join(f'[[keys]]\nname = "k{n}"\nsha256 = "{n:064x}"\n' for n in range(KEYS_LIMIT + 1))
    assert any(f"at most {KEYS_LIMIT}" in each for each in problems(many))
    large = tmp_path / "keys.toml"
    large.write_bytes(b"#" * (FILE_LIMIT + 1))
    with pytest.raises(KeysFileError, match="larger than 1 MiB"):
        read(large)


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    with suppress(KeysFileError):
        parse(raw, PATH)


@given(KEYS)
def test_written_table_is_read_as_the_same_key(key: KeySpec) -> None:
    assert parse(table(key).encode(), PATH) == (key,)


@given(st.lists(KEYS, min_size=1, max_size=4, unique_by=(lambda k: k.name, lambda k: k.sha256)), st.data())
def test_removed_table_leaves_all_others(keys: list[KeySpec], data: st.DataObject) -> None:
    text = "# head\n"
    for key in keys:
        text = with_key(text, key).replace("[[keys]]\nname", "# about it\n[[keys]] # x\nname")
    index = data.draw(st.integers(0, len(keys) - 1))
    line = [number for number, each in enumerate(text.splitlines(), 1) if each.startswith("[[keys]]")][index]
    rest = without_table(text, line)
    assert parse(rest.encode(), PATH) == (*keys[:index], *keys[index + 1 :])
    assert rest.startswith("# head\n")
    assert (
        tomllib.loads(rest).get("keys", [])
        == tomllib.loads(text)["keys"][:index] + tomllib.loads(text)["keys"][index + 1 :]
    )


def test_secrets_are_random_and_known_by_their_prefix() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert first.startswith(PREFIX)
    assert len(first) == len(PREFIX) + 43
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
