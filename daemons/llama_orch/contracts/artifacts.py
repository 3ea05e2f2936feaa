"""Artifacts: small documents whose id is the SHA-256 of their canonical JSON."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, JsonValue, StringConstraints

from llama_orch.contracts.base import Inbound, Outbound

ArtifactId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class NewArtifact(Inbound):
    """The body of POST /v2/artifacts. The id is the hash of all fields, so equal documents are the same artifact."""

    kind: Kind
    tags: Annotated[tuple[Tag, ...], Field(max_length=32)] = ()
    parent: ArtifactId | None = None
    content: JsonValue = None


class ArtifactHead(Outbound):
    """An artifact without its content."""

    id: str
    kind: str
    tags: list[str] = []
    parent: str | None = None
    created_at: datetime
    size_bytes: int


class Artifact(ArtifactHead):
    """The answer to GET /v2/artifacts/{id}."""

    content: JsonValue = None


class ArtifactList(Outbound):
    """GET /v2/artifacts, newest first. `next` is the `before` of the next page."""

    artifacts: list[ArtifactHead]
    count: int
    next: str | None = None
