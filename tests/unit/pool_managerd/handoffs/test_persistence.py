"""The pools that are known survive a restart, and a damaged file does not keep the daemon from starting."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.spool import HandoffFile
from pool_managerd.handoffs.persistence import FILE, Store, decode_saved, encode
from tests.unit.pool_managerd.values import found

KNOWN = (
    found(name="a.json", model={"id": "m", "path": "/m", "ctx_max": 512}, flags=["-np", "2"], unit="x.service"),
    found(name="ü.json", inode=2, pool_id="other", port=18081),
)


async def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    assert await Store(tmp_path / "state").save(KNOWN)
    assert Store(tmp_path / "state").load() == KNOWN


async def test_saving_replaces_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for known in (KNOWN, KNOWN[:1], ()):
        assert await store.save(known)
    assert (store.load(), os.listdir(tmp_path)) == ((), [FILE])


def test_a_first_start_knows_nothing(tmp_path: Path) -> None:
    assert Store(tmp_path / "missing").load() == ()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema":2,"replicas":[]}', b"\xff", b'{"replicas":[{}]}'])
def test_a_damaged_file_is_set_aside_with_a_log_entry(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert Store(tmp_path).load() == ()
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("pools.json.damaged-")
    assert aside.read_bytes() == content
    assert f"the saved pools are unusable: {tmp_path / FILE}: " in caplog.text


async def test_a_directory_that_cannot_be_written_to_is_said_once_and_saving_works_again_when_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    state.write_text("in the way")
    store = Store(state)
    assert not await store.save(KNOWN)
    assert not await store.save(KNOWN)
    assert caplog.text.count("cannot save the pools") == 1
    state.unlink()
    assert await store.save(KNOWN)


@given(st.binary(max_size=200) | st.integers(0, 800).map(lambda cut: encode(KNOWN)[:cut]))
def test_any_contents_are_read_or_refused_in_words(content: bytes) -> None:
    try:
        assert all(isinstance(item, HandoffFile) for item in decode_saved(content))
    except ValueError as error:
        assert str(error)  # noqa: PT017 -- either outcome is right
