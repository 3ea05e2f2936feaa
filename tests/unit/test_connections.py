"""What is heard on the tests' own connections."""

import pytest
import trio
import trio.testing

from tests.connections import heard


async def test_what_was_said_is_heard_and_then_that_the_other_side_has_left() -> None:
    here, there = trio.testing.memory_stream_pair()
    await there.send_all(b"half a request")
    await there.aclose()
    assert await heard(here) == b"half a request"
    with pytest.raises(trio.BrokenResourceError, match="left"):
        await heard(here)
