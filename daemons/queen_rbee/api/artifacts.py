"""Artifacts: kept, listed and shown."""

import re

from quart import Response, request
from quart_trio import QuartTrio

from llama_orch.contracts.artifacts import ArtifactList, NewArtifact
from llama_orch.contracts.errors import ApiError, not_found
from llama_orch.http.server.bodies import invalid
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.posted import body_of
from llama_orch.http.server.receiving import too_long
from queen_rbee.api.paging import wanted_page
from queen_rbee.api.views import answer
from queen_rbee.tasks.artifacts import LIMIT_BYTES, Artifacts, ArtifactTooLong

SHAPE = Shape(values=100_000, nodes=50_000)


def add_artifacts(app: QuartTrio, artifacts: Artifacts) -> None:
    """Add the routes to `app`."""

    @app.post("/v2/artifacts")
    async def add_artifact() -> Response:
        new = await body_of(NewArtifact, SHAPE, LIMIT_BYTES)
        try:
            head, is_new = await artifacts.add(new)
        except ArtifactTooLong as error:
            raise too_long(LIMIT_BYTES) from error
        return answer(head, 201 if is_new else 200)

    @app.get("/v2/artifacts")
    async def artifact_list() -> Response:
        return answer(await _listed(artifacts))

    @app.get("/v2/artifacts/<artifact_id>")
    async def artifact(artifact_id: str) -> Response:
        found = await artifacts.get(artifact_id) if _is_id(artifact_id) else None
        if found is None:
            raise not_found("artifact", artifact_id, "An id is the 64 hex digits that POST /v2/artifacts answers with.")
        return Response(found, content_type="application/json")


async def _listed(artifacts: Artifacts) -> ArtifactList:
    page = wanted_page()
    if page.before is not None:
        await _check_before(artifacts, page.before)
    kind, tag = request.args.get("kind"), request.args.get("tag")
    heads, following = await artifacts.listed(kind=kind, tag=tag, limit=page.limit, before=page.before)
    return ArtifactList(artifacts=heads, count=len(heads), next=following)


async def _check_before(artifacts: Artifacts, before: str) -> None:
    """A listing that goes on behind what is not there would end there without a word."""
    if not _is_id(before):
        raise ApiError(400, invalid([("before", "must be the id of an artifact, 64 hex digits")]))
    if await artifacts.get(before) is None:
        raise ApiError(400, invalid([("before", "is no artifact any more; begin without it")]))


def _is_id(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None
