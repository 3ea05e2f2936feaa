"""The sessions in memory, bounded and in order of use, and those that the store has yet to remove."""

from collections.abc import Iterable, Iterator
from uuid import UUID

from queen_rbee.sessions.session import Session


class SessionTable:
    """Sessions by id, the most recently used last. `removed` have left the table and may still be in the store."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sessions: dict[UUID, Session] = {}
        self.removed: dict[UUID, None] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session_id: UUID) -> bool:
        return session_id in self._sessions

    def get(self, session_id: UUID) -> Session | None:
        """Return the session, even if it has expired and is not removed yet."""
        return self._sessions.get(session_id)

    def get_unexpired(self, session_id: UUID, now: float) -> Session | None:
        """Return the session; remove it if it has expired."""
        session = self._sessions.get(session_id)
        if session and session.expired(now):
            self.remove(session_id)
            return None
        return session

    def newest_first(self, before: UUID | None = None) -> Iterator[Session]:
        """Iterate over the sessions after `before`. Raises KeyError if `before` is unknown."""
        newest = iter(reversed(self._sessions.values()))
        if before is not None:
            if before not in self._sessions:
                raise KeyError(before)
            while next(newest).session_id != before:
                pass
        return newest

    def load(self, sessions: Iterable[Session]) -> None:
        """Add stored sessions; the longest idle ones are removed if there are too many."""
        for session in sorted(sessions, key=lambda session: session.used_at):
            self._sessions[session.session_id] = session
        for session_id in list(self._sessions)[: -self._limit]:
            self.remove(session_id)

    def put(self, session: Session) -> None:
        """Add or replace a session, as the most recently used one."""
        self._sessions.pop(session.session_id, None)
        self._sessions[session.session_id] = session
        self.removed.pop(session.session_id, None)

    def replace(self, session: Session) -> None:
        """Replace a session without changing its position."""
        self._sessions[session.session_id] = session

    def remove(self, session_id: UUID) -> None:
        del self._sessions[session_id]
        self.removed[session_id] = None

    def remove_expired(self, now: float) -> None:
        """Looks at every session: 100,000 take about 10 ms."""
        for session_id in [key for key, session in self._sessions.items() if session.expired(now)]:
            self.remove(session_id)

    def has_room(self) -> bool:
        """Whether there is a free entry or one that `make_room` can free."""
        return len(self._sessions) < self._limit or self._longest_idle() is not None

    def make_room(self) -> bool:
        """Remove the longest idle session if no entry is free; False if all have open turns."""
        if len(self._sessions) < self._limit:
            return True
        idle = self._longest_idle()
        if idle is not None:
            self.remove(idle)
        return idle is not None

    def _longest_idle(self) -> UUID | None:
        return next((key for key, session in self._sessions.items() if not session.open_turns), None)
