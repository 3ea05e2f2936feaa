"""The limit on the bandwidth of all downloads together (ENGINE_PROVISIONER_DOWNLOAD_LIMIT)."""

import trio

BURST_S = 0.25
"""How far the downloads may be ahead of the limit."""


class Bandwidth:
    """Delays downloads so that together they receive at most `bytes_s` bytes a second; None: no limit."""

    def __init__(self, bytes_s: int | None = None) -> None:
        self._bytes_s = bytes_s
        self._due = 0.0
        """When everything received so far is paid for, on trio's clock."""

    async def spend(self, count: int) -> None:
        """Wait until `count` received bytes are within the limit. TCP then slows the server down."""
        if self._bytes_s is None:
            return
        now = trio.current_time()
        self._due = max(self._due, now) + count / self._bytes_s
        if self._due - now > BURST_S:
            await trio.sleep(self._due - now - BURST_S)
