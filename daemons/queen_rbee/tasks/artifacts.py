"""Artifacts: small documents known by the SHA-256 of their canonical JSON, read through from the store.

Owns how they are stored: as the JSON array `[HEAD,\\nCONTENT]`, so that a listing reads heads without contents and a
content is shown just as it was hashed.
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

_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical(value: JsonValue) -> str:
    """`value` as above. Raises ValueError for infinities and NaN, which JSON has not."""
    return _ENCODE(value)


def whole(new: NewArtifact, content: str) -> bytes:
    """The document that the id of `new` is made of; `content` is its content, canonical already.

    Raises ValueError for lone surrogates, which UTF-8 has not.
    """
    kind, parent, tags = _ENCODE(new.kind), _ENCODE(new.parent), _ENCODE(new.tags)
    return f'{{"content":{content},"kind":{kind},"parent":{parent},"tags":{tags}}}'.encode()


def artifact_id(document: bytes) -> str:
    """The id of a canonical document."""
    return hashlib.sha256(document).hexdigest()


LIMIT_BYTES = 1 << 20
BATCH = 32
"""So many artifacts, of up to LIMIT_BYTES each, are in memory at once while a listing looks for tags."""
LOOKED_AT = 5_000
SEPARATOR = ",\n"


@dataclass(frozen=True)
class Written:
    """An artifact as the store has it: `head` and `content` are JSON."""

    head: ArtifactHead
    content: str

    @property
    def document(self) -> Document:
        """For the store."""
        body = f"[{self.head.model_dump_json()}{SEPARATOR}{self.content}]"
        return Document(self.head.id, body, self.head.kind, self.head.created_at.timestamp())


def written(new: NewArtifact, now: datetime) -> Written:
    """`new`, with its id. Raises ValueError for content that JSON has no words for, `TooLong` beyond LIMIT_BYTES."""
    content = canonical(new.content)
    document = whole(new, content)
    if len(document) > LIMIT_BYTES:
        raise TooLong
    head = ArtifactHead(
        id=artifact_id(document),
        kind=new.kind,
        tags=list(new.tags),
        parent=new.parent,
        created_at=now,
        size_bytes=len(document),
    )
    return Written(head, content)


class TooLong(Exception):
    """The canonical document has more than LIMIT_BYTES."""


class Artifacts:
    """All artifacts of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, new: NewArtifact) -> tuple[ArtifactHead, bool]:
        """The head of the artifact, and whether it is new; the same document again is the same artifact.

        Durable on return. Raises ApiError that names the field, TooLong, StoreFailure.
        """
        try:
            made = written(new, datetime.now(UTC))
        except ValueError as error:
            raise ApiError(400, invalid([("content", f"cannot be written as JSON: {error}")])) from error
        if known := await self._store.get("artifact", made.head.id):
            return head_of(known), False
        if new.parent and not await self._store.get("artifact", new.parent):
            raise ApiError(400, invalid([("parent", "is the id of no artifact")]))
        await self._store.put("artifact", made.document)
        return made.head, True

    def record(
        self, view: TaskView, request: TaskRequest, target: Candidate | None, passage: Passage | None = None
    ) -> str:
        """Leave the record of a task that has ended, soon; its id. Does not wait."""
        made = written(task_record(view, request, target, passage), datetime.now(UTC))
        self._store.put_later("artifact", made.document)
        return made.head.id

    async def get(self, identifier: str) -> str | None:
        """The artifact as JSON. Raises StoreFailure."""
        found = await self._store.get("artifact", identifier)
        if found is None:
            return None
        head, content = parts(found)
        return f'{head[:-1]},"content":{content}}}'

    async def listed(
        self, *, kind: str | None, tag: str | None, limit: int, before: str | None
    ) -> tuple[list[ArtifactHead], str | None]:
        """At most `limit` heads, the newest first, behind the artifact `before`; and where the next page begins.

        Looks at LOOKED_AT artifacts at most, so that a page can be short, even empty, and have a next one. Raises
        StoreFailure.
        """
        found: list[ArtifactHead] = []
        size = min(BATCH, limit + 1) if tag is None else BATCH
        for _batch in range(LOOKED_AT // size):
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


def parts(document: Document) -> tuple[str, str]:
    """Head and content, both JSON."""
    head, _, content = document.body[1:-1].partition(SEPARATOR)
    return head, content


def head_of(document: Document) -> ArtifactHead:
    """The artifact without its content."""
    return ArtifactHead.model_validate_json(parts(document)[0])
