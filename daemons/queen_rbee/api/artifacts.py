"""Routes of artifacts."""

import re

from quart import Response, request

from llama_orch.contracts.artifacts import Artifact, ArtifactHead, ArtifactList, NewArtifact
from llama_orch.contracts.errors import ApiError, not_found
from llama_orch.http.server.bodies import invalid
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.mounting import json_response
from llama_orch.http.server.receiving import too_long
from llama_orch.http.server.routes import JSON, Parameter, RequestBody, json_reply, route
from queen_rbee.api.paging import requested_page
from queen_rbee.api.parameters import ARTIFACT_ID, EXAMPLE_ARTIFACT_ID, LIMIT, TEXT, before
from queen_rbee.tasks.artifacts import LIMIT_BYTES, Artifacts, ArtifactTooLong

ID = re.compile("[0-9a-f]{64}")
NEW_ARTIFACT = RequestBody(
    NewArtifact,
    {"plan": {"kind": "plan", "tags": ["monday"], "content": {"steps": ["ask", "answer"]}}},
    Shape(values=100_000, nodes=50_000),
    LIMIT_BYTES,
)


class ArtifactRoutes:
    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    @route(
        "POST",
        "/v2/artifacts",
        "Store a document under the SHA-256 of its canonical JSON",
        {
            200: json_reply("The same document was already stored.", ArtifactHead, artifact_id="/id"),
            201: json_reply("The document is stored.", ArtifactHead, artifact_id="/id"),
        },
        body=NEW_ARTIFACT,
        errors=(503,),
    )
    async def add_artifact(self, new: NewArtifact) -> Response:
        try:
            head, is_new = await self._artifacts.add(new)
        except ArtifactTooLong as error:
            raise too_long(LIMIT_BYTES) from error
        return json_response(head, 201 if is_new else 200)

    @route(
        "GET",
        "/v2/artifacts",
        "List artifacts, newest first",
        {200: json_reply("The artifacts, without their contents.", ArtifactList, artifact_id="/artifacts/0/id")},
        parameters=(
            Parameter("kind", "Only artifacts of this kind.", TEXT),
            Parameter("tag", "Only artifacts with this tag.", TEXT),
            LIMIT,
            before(ARTIFACT_ID, EXAMPLE_ARTIFACT_ID),
        ),
        errors=(503,),
    )
    async def list_artifacts(self) -> ArtifactList:
        page = requested_page()
        if page.before is not None:
            await self._check_before(page.before)
        kind, tag = request.args.get("kind"), request.args.get("tag")
        heads, following = await self._artifacts.listed(kind=kind, tag=tag, limit=page.limit, before=page.before)
        return ArtifactList(artifacts=heads, count=len(heads), next=following)

    @route(
        "GET",
        "/v2/artifacts/{artifact_id}",
        "Get an artifact",
        {200: json_reply("The artifact.", Artifact)},
        errors=(503,),
    )
    async def get_artifact(self, artifact_id: str) -> Response:
        artifact = await self._artifacts.get(artifact_id) if ID.fullmatch(artifact_id) else None
        if artifact is None:
            raise not_found(
                "artifact", artifact_id, "An artifact's id is the 64 hex digits that POST /v2/artifacts returns."
            )
        return Response(artifact, content_type=JSON)

    async def _check_before(self, before: str) -> None:
        """Refuse an unknown artifact: the listing would silently be empty."""
        if not ID.fullmatch(before):
            raise ApiError(400, invalid([("before", "must be the id of an artifact, 64 hex digits")]))
        if await self._artifacts.get(before) is None:
            raise ApiError(400, invalid([("before", "names an artifact that no longer exists; list again without it")]))
