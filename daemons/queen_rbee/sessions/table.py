"""The sessions in memory: at most so many, in the order of their use, and which of them the store has yet to forget."""

from collections.abc import Iterable, Iterator
from uuid import UUID

from queen_rbee.sessions.session import Session


class SessionTable:
    """Sessions by their ids, the most recently used last. `gone` have left and may still be in the store."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sessions: dict[UUID, Session] = {}
        self.gone: dict[UUID, None] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session_id: UUID) -> bool:
        return session_id in self._sessions

    def get(self, session_id: UUID) -> Session | None:
        """The session, even where its time has run out and nobody has noticed yet."""
        return self._sessions.get(session_id)

    def living(self, session_id: UUID, now: float) -> Session | None:
        """The session, which goes if its time has run out."""
        session = self._sessions.get(session_id)
        if session and session.expired(now):
            self.forget(session_id)
            return None
        return session

    def newest_first(self, before: UUID | None = None) -> Iterator[Session]:
        """All sessions, behind `before`. Raises KeyError where that is none."""
        newest = iter(reversed(self._sessions.values()))
        if before is not None:
            if before not in self._sessions:
                raise KeyError(before)
            while next(newest).session_id != before:
                pass
        return newest

    def fill(self, sessions: Iterable[Session]) -> None:
        """Take over what was stored, as far as there is room: the longest idle ones go."""
        for session in sorted(sessions, key=lambda session: session.used_at):
            self._sessions[session.session_id] = session
        for session_id in list(self._sessions)[: -self._limit]:
            self.forget(session_id)

    def keep(self, session: Session) -> None:
        """Add or replace it, as the most recently used one."""
        self._sessions.pop(session.session_id, None)
        self._sessions[session.session_id] = session
        self.gone.pop(session.session_id, None)

    def replace(self, session: Session) -> None:
        """Replace it where it is in the order."""
        self._sessions[session.session_id] = session

    def forget(self, session_id: UUID) -> None:
        """It leaves."""
        del self._sessions[session_id]
        self.gone[session_id] = None

    def expire(self, now: float) -> None:
        """Those leave whose time has run out. Looks at every one: 100,000 take about 10 ms."""
        for session_id in [key for key, session in self._sessions.items() if session.expired(now)]:
            self.forget(session_id)

    def has_room(self) -> bool:
        """Whether one more can have a place."""
        return len(self._sessions) < self._limit or self._idle() is not None

    def make_room(self) -> bool:
        """Likewise; where none is free, the session leaves that idles longest."""
        if len(self._sessions) < self._limit:
            return True
        idle = self._idle()
        if idle is not None:
            self.forget(idle)
        return idle is not None

    def _idle(self) -> UUID | None:
        return next((key for key, session in self._sessions.items() if not session.open_turns), None)
