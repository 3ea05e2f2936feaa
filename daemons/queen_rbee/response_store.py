"""Responses that clients of OpenAI's Responses API may continue or read later: in memory, bounded, off by default."""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from queen_rbee.keys.keyring import holder_name, may_see

RESPONSES_LIMIT = 10_000
"""Responses that are stored, however small they are."""


@dataclass
class StoredResponse:
    """One response and what it was asked with, as JSON. `previous_id` is the response that it continues."""

    response_id: str
    previous_id: str | None
    input: bytes
    response: bytes
    used: float = 0.0
    """When it was stored or last used, on trio's clock."""
    owner: str | None = field(default_factory=holder_name)
    """The name of the user's key that asked for it."""

    @property
    def size(self) -> int:
        return len(self.input) + len(self.response)


class ResponseStore:
    """The one owner of stored responses, least recently used first.

    Contents are removed when they are too old, when there are too many of them, and when a client deletes them. Nothing
    is written to disk: a restart removes everything.
    """

    def __init__(
        self,
        size_limit: int,
        age_s: float,
        responses_limit: int = RESPONSES_LIMIT,
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        """`size_limit` is in bytes; 0 turns the store off. `age_s` counts from the last use of a response."""
        self._size_limit = size_limit
        self._age_s = age_s
        self._responses_limit = responses_limit
        self._now = now
        self._stored: dict[str, StoredResponse] = {}
        self._size = 0

    @property
    def enabled(self) -> bool:
        return self._size_limit > 0

    def add(self, response: StoredResponse) -> bool:
        """Store a response; the least recently used ones make room. False if it is larger than all room."""
        self.remove_expired()
        if response.size > self._size_limit:
            return False
        self.delete(response.response_id)
        while len(self._stored) >= self._responses_limit or self._size + response.size > self._size_limit:
            self.delete(next(iter(self._stored)))
        response.used = self._now()
        self._stored[response.response_id] = response
        self._size += response.size
        return True

    def get(self, response_id: str) -> StoredResponse | None:
        """Return a stored response, which counts as used; None if it belongs to another user's key."""
        self.remove_expired()
        found = self._stored.get(response_id)
        if found is None or not may_see(found.owner):
            return None
        found.used = self._now()
        self._stored[response_id] = self._stored.pop(response_id)
        return found

    def conversation(self, response_id: str) -> list[StoredResponse]:
        """Return a response and those that it continues, oldest first. Raises KeyError with the id that is missing."""
        found: list[StoredResponse] = []
        following: str | None = response_id
        while following is not None:
            response = self.get(following)
            if response is None:
                raise KeyError(following)
            found.append(response)
            following = response.previous_id
        return found[::-1]

    def delete(self, response_id: str) -> bool:
        """Remove a response; False if it is not stored."""
        found = self._stored.pop(response_id, None)
        self._size -= found.size if found else 0
        return found is not None

    def remove_expired(self) -> None:
        oldest = self._now() - self._age_s
        while self._stored and (first := next(iter(self._stored.values()))).used <= oldest:
            self.delete(first.response_id)
