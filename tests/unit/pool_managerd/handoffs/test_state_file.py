"""pools.json survives restarts; a damaged file does not keep the daemon from starting."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.spool import HandoffFile
from pool_managerd.handoffs.state_file import FILE, StateFile, decode_saved, encode
from tests.unit.pool_managerd.values import found

KNOWN = (
    found(name="a.json", model={"id": "m", "path": "/m", "ctx_max": 512}, flags=["-np", "2"], unit="x.service"),
    found(name="ü.json", inode=2, pool_id="other", port=18081),
)


async def test_saved_pools_are_loaded(tmp_path: Path) -> None:
    assert await StateFile(tmp_path / "state").save(KNOWN)
    assert StateFile(tmp_path / "state").load() == KNOWN


async def test_saving_replaces_the_file_and_leaves_no_others(tmp_path: Path) -> None:
    store = StateFile(tmp_path)
    for known in (KNOWN, KNOWN[:1], ()):
        assert await store.save(known)
    assert (store.load(), os.listdir(tmp_path)) == ((), [FILE])


def test_first_start_has_no_pools(tmp_path: Path) -> None:
    assert StateFile(tmp_path / "missing").load() == ()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema":2,"replicas":[]}', b"\xff", b'{"replicas":[{}]}'])
def test_damaged_file_is_renamed_and_logged(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert StateFile(tmp_path).load() == ()
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("pools.json.damaged-")
    assert aside.read_bytes() == content
    assert f"the saved pools are unusable: {tmp_path / FILE}: " in caplog.text


async def test_unwritable_directory_is_logged_once_and_retried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    state.write_text("in the way")
    store = StateFile(state)
    assert not await store.save(KNOWN)
    assert not await store.save(KNOWN)
    assert caplog.text.count("cannot save the pools") == 1
    state.unlink()
    assert await store.save(KNOWN)


@given(st.binary(max_size=200) | st.integers(0, 800).map(lambda cut: encode(KNOWN)[:cut]))
def test_any_content_is_read_or_refused_with_a_reason(content: bytes) -> None:
    try:
        assert all(isinstance(item, HandoffFile) for item in decode_saved(content))
    except ValueError as error:
        assert str(error)  # noqa: PT017 -- either outcome is right
