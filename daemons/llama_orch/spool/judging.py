"""One look at a handoff directory: what can be taken, and what is bad and why.

A writer that fills a file in place is met half-way: what is not JSON yet and was touched a moment ago is left for
the next look.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.validation import invalid_fields, summary
from llama_orch.spool.reading import Document, Refused, read_all
from llama_orch.spool.stored import Identity

GRACE_S = 2.0
PROBLEMS_SHOWN = 5

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Found:
    """An engine's announcement, and the file that it came in."""

    handoff: Handoff
    identity: Identity


@dataclass(frozen=True)
class Bad:
    """A file that cannot be taken; `reason` says what is wrong with it."""

    name: str
    reason: str
    identity: Identity


def scan(directory: Path, *, owners: frozenset[int], now_s: float) -> tuple[Found | Bad, ...]:
    """Everything in `directory` that is complete, good or bad; nothing where there is no such directory.

    `now_s` is the time of day in seconds, as time.time() has it. Blocks: run in a thread. Raises SpoolUnreadable
    for the directory itself, never for a file in it.
    """
    return tuple(_judged(read_all(directory, owners), now_s))


def _judged(items: Iterator[Document | Refused], now_s: float) -> Iterator[Found | Bad]:
    for item in items:
        if isinstance(item, Refused):
            yield Bad(item.identity.name, item.reason, item.identity)
        elif verdict := judge(item, now_s):
            yield verdict


def judge(document: Document, now_s: float) -> Found | Bad | None:
    """Whether `document` is a handoff; None while its writer may still be at it."""
    identity = document.identity
    try:
        return Found(decode(document.content, Handoff), identity)
    except NotJson as error:
        return None if young(identity, now_s) else Bad(identity.name, str(error), identity)
    except ValueError as error:
        return Bad(identity.name, str(error), identity)


def young(identity: Identity, now_s: float) -> bool:
    """Whether the file's writer may still be at it; a file from the future tells of a clock that was set."""
    return abs(now_s - identity.mtime_ns / 1e9) < GRACE_S


class NotJson(ValueError):
    """The content is no JSON, perhaps not yet."""


def decode(content: bytes, model: type[Model]) -> Model:
    """`content` as a `model`. Raises NotJson, or ValueError whose text names each wrong field."""
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        fields = invalid_fields(error)
    if fields[0].kind == "json_invalid":
        raise NotJson(fields[0].text)
    raise ValueError(summary(fields, PROBLEMS_SHOWN, "the document"))
