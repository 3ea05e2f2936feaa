"""Ending an answer before the first of some texts, for engines that let the text through or cannot be told of it.

Pure: pieces of text in, pieces of text out.
"""

from collections.abc import Sequence


class StopTexts:
    """What may be shown of one answer; the beginning of a stop text is held back until it is known to be none."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """What may be shown now that `piece` has come, and whether a stop text has: then nothing follows."""
        if not self._stops:
            return piece, False
        came = self._held + piece
        # the one that is complete first, as if the text came one character at a time: how it is cut changes nothing
        if found := [(at + len(stop), at) for stop in self._stops if (at := came.find(stop)) >= 0]:
            return came[: min(found)[1]], True
        keep = max(_overlap(came, stop) for stop in self._stops)
        self._held = came[len(came) - keep :]
        return came[: len(came) - keep], False

    def rest(self) -> str:
        """What was held back, when the answer ends without a stop text."""
        held, self._held = self._held, ""
        return held


def _overlap(came: str, stop: str) -> int:
    """How many characters at the end of `came` may be the beginning of `stop`."""
    longest = min(len(stop) - 1, len(came))
    return next((size for size in range(longest, 0, -1) if came.endswith(stop[:size])), 0)
