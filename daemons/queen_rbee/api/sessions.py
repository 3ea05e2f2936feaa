"""Routes of sessions."""

from uuid import UUID

import trio

from llama_orch.contracts.errors import ApiError, not_found
from llama_orch.contracts.sessions import SessionChange, SessionList, SessionView
from llama_orch.http.server.bodies import invalid
from llama_orch.http.server.routes import Reply, RequestBody, json_reply, route
from queen_rbee.api.paging import before_as_uuid, requested_page
from queen_rbee.api.parameters import LIMIT, before
from queen_rbee.api.parameters import UUID as UUID_SCHEMA
from queen_rbee.sessions.sessions import Sessions

CHANGE = RequestBody(SessionChange, {"limited": {"ttl_ms": 3_600_000, "max_turns": 20, "tokens_budget": 100_000}})


class SessionRoutes:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @route(
        "GET",
        "/v2/sessions",
        "List sessions, most recently used first",
        {200: json_reply("The sessions.", SessionList, session_id="/sessions/0/session_id")},
        parameters=(LIMIT, before(UUID_SCHEMA)),
    )
    async def list_sessions(self) -> SessionList:
        page = requested_page()
        try:
            found = self._sessions.views(trio.current_time(), page.limit + 1, before_as_uuid(page))
        except KeyError as error:
            problem = "names a session that no longer exists; list again without it"
            raise ApiError(400, invalid([("before", problem)])) from error
        sessions = found[: page.limit]
        following = str(sessions[-1].session_id) if len(found) > page.limit else None
        return SessionList(sessions=sessions, count=len(sessions), next=following)

    @route("GET", "/v2/sessions/{session_id}", "Get a session", {200: json_reply("The session.", SessionView)})
    async def get_session(self, session_id: str) -> SessionView:
        identifier = _uuid(session_id)
        session = self._sessions.view(identifier, trio.current_time()) if identifier else None
        if session is None:
            raise _unknown(session_id)
        return session

    @route(
        "PUT",
        "/v2/sessions/{session_id}",
        "Set the limits of a session; create it if needed",
        {200: json_reply("The session with its new limits.", SessionView, session_id="/session_id")},
        body=CHANGE,
        errors=(503,),
    )
    async def change_session(self, change: SessionChange, session_id: str) -> SessionView:
        identifier = _uuid(session_id)
        if identifier is None:
            raise ApiError(400, invalid([("session_id", "must be a UUID")]))
        return await self._sessions.change(identifier, change, trio.current_time())

    @route(
        "DELETE",
        "/v2/sessions/{session_id}",
        "Delete a session",
        {204: Reply("The session is deleted.")},
        errors=(503,),
    )
    async def forget_session(self, session_id: str) -> None:
        identifier = _uuid(session_id)
        if identifier is None or not await self._sessions.delete(identifier, trio.current_time()):
            raise _unknown(session_id)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _unknown(session_id: str) -> ApiError:
    hint = "It may have expired (see ttl_ms_remaining). GET /v2/sessions lists the sessions."
    return not_found("session", session_id, hint)
