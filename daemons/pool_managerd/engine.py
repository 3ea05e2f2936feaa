"""Asking one engine how it is: /health, then /slots, and once what it serves where its handoff does not say.

Every question has a limit in time and size, and an answer of any shape is borne: engines differ, and what listens
on a port may be no engine at all.
"""

from functools import partial
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from llama_orch.contracts.handoff import Handoff
from llama_orch.http.client import UpstreamError, UpstreamTimeout, fetch
from pool_managerd.replica import Answer, Details, Sighting, Slots

LIMIT_S = 2.0
SIZE_LIMIT = 1 << 20
SHOWN = 300

Shape = TypeVar("Shape")


class _Slot(BaseModel):
    is_processing: bool


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


class _Generation(BaseModel):
    n_ctx: int


class _Properties(BaseModel):
    default_generation_settings: _Generation


class _Complaint(BaseModel):
    message: str


class _Refusal(BaseModel):
    error: _Complaint


SLOTS = TypeAdapter(list[_Slot])
MODELS = TypeAdapter(_Models)
PROPERTIES = TypeAdapter(_Properties)
REFUSAL = TypeAdapter(_Refusal)

get = partial(fetch, limit_s=LIMIT_S, size=SIZE_LIMIT)


async def ask(handoff: Handoff, *, describe: bool) -> Sighting:
    """One look at the engine of `handoff`; with `describe` also at what it serves. Takes at most 4 times LIMIT_S."""
    try:
        status, body = await get(f"{handoff.url}/health")
    except UpstreamTimeout as error:
        return Sighting(Answer.SILENT, f"the engine at {handoff.url} is silent: {error}")
    except UpstreamError as error:
        return Sighting(Answer.GONE, f"the engine at {handoff.url} is gone: {error}")
    if status >= 500:
        return Sighting(Answer.LOADING, complaint(status, body))
    details = await _details(handoff) if describe else None
    return Sighting(Answer.READY, slots=await _slots(handoff), details=details)


def complaint(status: int, body: bytes) -> str:
    """What an engine that is not ready says about it, in its own words."""
    refusal = parsed(REFUSAL, body)
    words = refusal.error.message if refusal else body.decode("utf-8", "replace").strip()
    return f"the engine answers {status}: {words[:SHOWN] or 'no reason given'}"


async def _slots(handoff: Handoff) -> Slots | None:
    """The slots, or None where the engine does not tell: not all do, and a busy one may be late."""
    slots = parsed(SLOTS, await _content(f"{handoff.url}/slots"))
    return Slots(len(slots), sum(not slot.is_processing for slot in slots)) if slots else None


async def _details(handoff: Handoff) -> Details:
    models = parsed(MODELS, await _content(f"{handoff.url}/v1/models"))
    properties = parsed(PROPERTIES, await _content(f"{handoff.url}/props"))
    return Details(
        tuple(model.id for model in models.data) if models else (),
        properties.default_generation_settings.n_ctx if properties else None,
    )


async def _content(url: str) -> bytes:
    """The body of a good answer; nothing where there is none."""
    try:
        status, body = await get(url)
    except UpstreamError:
        return b""
    return body if status == 200 else b""


def parsed(shape: TypeAdapter[Shape], body: bytes) -> Shape | None:
    """`body` if it has that shape."""
    try:
        return shape.validate_json(body)
    except ValidationError:
        return None
