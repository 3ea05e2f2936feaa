"""Cutting an answer before its first stop text, for engines that include it or do not support stop texts. Pure."""

from collections.abc import Sequence


class StopTexts:
    """Filters one answer. What may be the beginning of a stop text is held back until it is complete or ruled out."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """Return the text to pass on after `piece`, and whether a stop text has ended the answer."""
        if not self._stops:
            return piece, False
        text = self._held + piece
        # the stop text that is complete first: how the text is cut into pieces must not matter
        if found := [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]:
            return text[: min(found)[1]], True
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def rest(self) -> str:
        """Return what was held back, when the answer ends without a stop text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` may be the beginning of `stop`."""
    longest = min(len(stop) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
