"""Artifacts: small documents whose id is the SHA-256 of their canonical JSON, read through from the store.

They are stored as the JSON array `[HEAD,\\nCONTENT]`, so that a listing parses heads only and a content is returned
exactly as it was hashed.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from llama_orch.contracts.artifacts import ArtifactHead, NewArtifact
from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.tasks import TaskRequest, TaskView
from llama_orch.engines.wire.passage import Passage
from llama_orch.http.server.bodies import invalid
from queen_rbee.pools.candidates import Candidate
from queen_rbee.store.protocol import Document, Store
from queen_rbee.tasks.records import task_record

LIMIT_BYTES = 1 << 20
BATCH = 32
"""Artifacts, each up to LIMIT_BYTES, that a listing by tag holds in memory at once."""
MAX_SCANNED = 5_000
"""Artifacts that one page looks at."""
SEPARATOR = ",\n"

_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class ArtifactTooLong(Exception):
    """The canonical document has more than LIMIT_BYTES."""


def canonical_json(value: JsonValue) -> str:
    """Return `value` as JSON with sorted keys and no spaces. Raises ValueError for infinities and NaN."""
    return _ENCODE(value)


def canonical_document(new: NewArtifact, content: str) -> bytes:
    """Return the document that the id of `new` is computed from; `content` is its content as canonical JSON.

    Raises ValueError for lone surrogates, which UTF-8 cannot encode.
    """
    kind, parent, tags = _ENCODE(new.kind), _ENCODE(new.parent), _ENCODE(new.tags)
    return f'{{"content":{content},"kind":{kind},"parent":{parent},"tags":{tags}}}'.encode()


def artifact_id(document: bytes) -> str:
    """Return the id of a canonical document."""
    return hashlib.sha256(document).hexdigest()


@dataclass(frozen=True)
class EncodedArtifact:
    """An artifact ready for the store; `content` is canonical JSON."""

    head: ArtifactHead
    content: str

    @property
    def document(self) -> Document:
        body = f"[{self.head.model_dump_json()}{SEPARATOR}{self.content}]"
        return Document(self.head.id, body, self.head.kind, self.head.created_at.timestamp())


def encode_artifact(new: NewArtifact, now: datetime) -> EncodedArtifact:
    """Raises ValueError for content that JSON cannot express, ArtifactTooLong."""
    content = canonical_json(new.content)
    document = canonical_document(new, content)
    if len(document) > LIMIT_BYTES:
        raise ArtifactTooLong
    head = ArtifactHead.model_construct(
        id=artifact_id(document),
        kind=new.kind,
        tags=list(new.tags),
        parent=new.parent,
        created_at=now,
        size_bytes=len(document),
    )
    return EncodedArtifact(head, content)


class Artifacts:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, new: NewArtifact) -> tuple[ArtifactHead, bool]:
        """Add an artifact; return its head, and whether it is new: equal documents are one artifact.

        Durable on return. Raises ApiError 400 that names the field, ArtifactTooLong, StoreFailure.
        """
        try:
            encoded = encode_artifact(new, datetime.now(UTC))
        except ValueError as error:
            raise ApiError(400, invalid([("content", f"cannot be written as JSON: {error}")])) from error
        if known := await self._store.get("artifact", encoded.head.id):
            return head_of(known), False
        if new.parent and not await self._store.get("artifact", new.parent):
            raise ApiError(400, invalid([("parent", "no artifact has this id")]))
        await self._store.put("artifact", encoded.document)
        return encoded.head, True

    def record(
        self, view: TaskView, request: TaskRequest, target: Candidate | None, passage: Passage | None = None
    ) -> str:
        """Add the record of an ended task; return its id. Durable some time later."""
        encoded = encode_artifact(task_record(view, request, target, passage), datetime.now(UTC))
        self._store.put_later("artifact", encoded.document)
        return encoded.head.id

    async def get(self, identifier: str) -> str | None:
        """Return the artifact as JSON. Raises StoreFailure."""
        found = await self._store.get("artifact", identifier)
        if found is None:
            return None
        head, content = split_document(found)
        return f'{head[:-1]},"content":{content}}}'

    async def listed(
        self, *, kind: str | None, tag: str | None, limit: int, before: str | None
    ) -> tuple[list[ArtifactHead], str | None]:
        """Return up to `limit` heads after the artifact `before`, newest first, and `before` of the next page.

        Looks at MAX_SCANNED artifacts at most, so a page may be short, even empty, and still have a next one. Raises
        StoreFailure.
        """
        found: list[ArtifactHead] = []
        size = min(BATCH, limit + 1) if tag is None else BATCH
        for _batch in range(MAX_SCANNED // size):
            batch = await self._store.list_documents("artifact", tag=kind, before=before, limit=size)
            for document in batch:
                head = head_of(document)
                if tag is None or tag in head.tags:
                    if len(found) == limit:
                        return found, before
                    found.append(head)
                before = document.key
            if len(batch) < size:
                return found, None
        return found, before


def split_document(document: Document) -> tuple[str, str]:
    """Return head and content, both JSON."""
    head, _, content = document.body[1:-1].partition(SEPARATOR)
    return head, content


def head_of(document: Document) -> ArtifactHead:
    return ArtifactHead.model_validate_json(split_document(document)[0])
