"""What is heard on the tests' own connections; the other side may leave at any time."""

import trio


async def heard(stream: trio.abc.ReceiveStream) -> bytes:
    """The next bytes. Raises trio.BrokenResourceError where the other side has left: a wait for more would not end."""
    if data := await stream.receive_some():
        return bytes(data)
    raise trio.BrokenResourceError("the other side has left")
