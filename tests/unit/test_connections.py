"""The receive function of the tests."""

import pytest
import trio
import trio.testing

from tests.connections import receive_some


async def test_data_is_received_before_the_disconnect() -> None:
    here, there = trio.testing.memory_stream_pair()
    await there.send_all(b"half a request")
    await there.aclose()
    assert await receive_some(here) == b"half a request"
    with pytest.raises(trio.BrokenResourceError, match="left"):
        await receive_some(here)
