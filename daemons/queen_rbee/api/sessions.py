"""Sessions: looked at, limited and forgotten by clients."""

from uuid import UUID

import trio
from quart import Response
from quart_trio import QuartTrio

from llama_orch.contracts.errors import ApiError, not_found
from llama_orch.contracts.sessions import SessionChange, SessionList
from llama_orch.http.server.bodies import invalid
from llama_orch.http.server.posted import body_of
from queen_rbee.api.paging import uuid_before, wanted_page
from queen_rbee.api.views import answer
from queen_rbee.sessions.sessions import Sessions


def add_sessions(app: QuartTrio, sessions: Sessions) -> None:
    """Add the routes to `app`."""

    @app.get("/v2/sessions")
    async def session_list() -> Response:
        return answer(_listed(sessions))

    @app.get("/v2/sessions/<session_id>")
    async def session(session_id: str) -> Response:
        identifier = _uuid(session_id)
        found = sessions.view(identifier, trio.current_time()) if identifier else None
        if found is None:
            raise _unknown(session_id)
        return answer(found)

    @app.put("/v2/sessions/<session_id>")
    async def change_session(session_id: str) -> Response:
        change = await body_of(SessionChange)
        identifier = _uuid(session_id)
        if identifier is None:
            raise ApiError(400, invalid([("session_id", "must be a UUID")]))
        return answer(await sessions.change(identifier, change, trio.current_time()))

    @app.delete("/v2/sessions/<session_id>")
    async def forget_session(session_id: str) -> Response:
        identifier = _uuid(session_id)
        if identifier is None or not await sessions.delete(identifier, trio.current_time()):
            raise _unknown(session_id)
        return Response("", status=204)  # without a body, Quart looks for an asyncio loop


def _listed(sessions: Sessions) -> SessionList:
    page = wanted_page()
    before = uuid_before(page)
    try:
        found = sessions.views(trio.current_time(), page.limit + 1, before)
    except KeyError as error:
        raise ApiError(400, invalid([("before", "is no session any more; begin without it")])) from error
    shown = found[: page.limit]
    following = str(shown[-1].session_id) if len(found) > page.limit else None
    return SessionList(sessions=shown, count=len(shown), next=following)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _unknown(session_id: str) -> ApiError:
    return not_found("session", session_id, "It may have ended: see ttl_ms_remaining, and GET /v2/sessions.")
