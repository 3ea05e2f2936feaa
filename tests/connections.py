"""Receive on test connections whose peer may leave at any time."""

import trio


async def receive_some(stream: trio.abc.ReceiveStream) -> bytes:
    """Receive bytes. Raises trio.BrokenResourceError if the peer has left, so that no test waits for ever."""
    if data := await stream.receive_some():
        return bytes(data)
    raise trio.BrokenResourceError("the peer has left")
