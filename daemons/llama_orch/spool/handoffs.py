"""Scan a handoff directory once: return the valid announcements and the bad files with reasons.

A writer may fill a file in place: a file that is not valid JSON and was modified a moment ago is left for the next
scan.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.validation import invalid_fields, summary
from llama_orch.spool.files import RefusedFile, SpoolFile, read_all
from llama_orch.spool.identity import Identity

GRACE_S = 2.0
PROBLEM_LIMIT = 5

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class HandoffFile:
    """An engine's announcement and its file."""

    handoff: Handoff
    identity: Identity


@dataclass(frozen=True)
class BadFile:
    """A file that is not a valid announcement, and why."""

    name: str
    reason: str
    identity: Identity


def scan(directory: Path, *, owners: frozenset[int], now_s: float) -> tuple[HandoffFile | BadFile, ...]:
    """Return all complete files in `directory`, valid or bad; none if the directory does not exist.

    `now_s` is the time in seconds since the epoch. Blocks: run it in a thread. Raises SpoolUnreadable for the
    directory, never for a file in it.
    """
    return tuple(_parse_all(read_all(directory, owners), now_s))


def _parse_all(items: Iterator[SpoolFile | RefusedFile], now_s: float) -> Iterator[HandoffFile | BadFile]:
    for item in items:
        if isinstance(item, RefusedFile):
            yield BadFile(item.identity.name, item.reason, item.identity)
        elif parsed := parse(item, now_s):
            yield parsed


def parse(document: SpoolFile, now_s: float) -> HandoffFile | BadFile | None:
    """Parse `document` as a handoff. Return None if it may be incomplete because its writer is not done."""
    identity = document.identity
    try:
        return HandoffFile(decode(document.content, Handoff), identity)
    except NotJson as error:
        return None if young(identity, now_s) else BadFile(identity.name, str(error), identity)
    except ValueError as error:
        return BadFile(identity.name, str(error), identity)


def young(identity: Identity, now_s: float) -> bool:
    """Return whether the file was modified within GRACE_S. A time in the future means that the clock was set back."""
    return abs(now_s - identity.mtime_ns / 1e9) < GRACE_S


class NotJson(ValueError):
    """The content is not JSON, or not yet complete."""


def decode(content: bytes, model: type[Model]) -> Model:
    """Parse `content` as a `model`. Raises NotJson, or ValueError whose text names each invalid field."""
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        fields = invalid_fields(error)
    if fields[0].kind == "json_invalid":
        raise NotJson(fields[0].text)
    raise ValueError(summary(fields, PROBLEM_LIMIT, "the document"))
