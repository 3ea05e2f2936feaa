"""Asking one engine how it is: its health, then its work, and once what it serves where its handoff does not say.

Every question has a limit in time and size, and an answer of any shape is borne: engines differ, and what listens
on a port may be no engine at all.
"""

import math
from dataclasses import dataclass
from functools import partial

import trio
from pydantic import BaseModel, TypeAdapter

from llama_orch.contracts.engines import health_path, is_loading
from llama_orch.contracts.handoff import Handoff
from llama_orch.engines.describing import Details, openai_models, parsed
from llama_orch.engines.describing import describe as description
from llama_orch.http.client.client import UpstreamError, UpstreamTimeout, fetch, request
from pool_managerd.engines.kv_cache import llama_server_usage, vllm_usage
from pool_managerd.pools.replica import Answer, Sighting, Slots

LIMIT_S = 2.0
METRICS_LIMIT_S = 0.25
"""An engine is no less healthy where its own metrics are late: they are not waited for."""
SIZE_LIMIT = 1 << 20
SHOWN = 300


@dataclass(frozen=True)
class Work:
    """What an engine tells of the requests that it works on; None where it does not."""

    slots: Slots | None
    kv_usage: float | None


NOTHING_TOLD = Work(None, None)


class _Slot(BaseModel):
    is_processing: bool


class _Complaint(BaseModel):
    message: str


class _Refusal(BaseModel):
    error: _Complaint


SLOTS = TypeAdapter(list[_Slot])
REFUSAL = TypeAdapter(_Refusal)

get = partial(fetch, limit_s=LIMIT_S, size=SIZE_LIMIT)


async def ask(handoff: Handoff, *, describe: bool, aside_s: float = math.inf) -> Sighting:
    """One look at the engine of `handoff`; with `describe` also at what it serves. Takes at most 4 times LIMIT_S.

    What comes beside its health is not waited for beyond `aside_s` seconds from now: a busy engine may be late with it.
    """
    until_s = trio.current_time() + aside_s
    try:
        status, body = await get(handoff.url + health_path(handoff.engine))
    except UpstreamTimeout as error:
        return Sighting(Answer.SILENT, f"the engine at {handoff.url} is silent: {error}")
    except UpstreamError as error:
        return Sighting(Answer.GONE, f"the engine at {handoff.url} is gone: {error}")
    if _cannot_work(handoff.engine, status):
        return Sighting(Answer.LOADING, complaint(status, body))
    if handoff.engine == "openai-http":  # its models may come and go, and this is their list
        return Sighting(Answer.READY, details=openai_models(body))
    details, work = None, NOTHING_TOLD
    with trio.move_on_at(until_s):
        details = await _details(handoff) if describe else None
        work = await _work(handoff)
    return Sighting(Answer.READY, slots=work.slots, details=details, kv_usage=work.kv_usage)


def _cannot_work(engine: str, status: int) -> bool:
    """A refusal of the question is no illness; but /v1/models is all that is known of a server of OpenAI's API, and
    one that refuses it will refuse the rest."""
    return status >= 500 or is_loading(engine, status) or (engine == "openai-http" and status != 200)


def complaint(status: int, body: bytes) -> str:
    """What an engine that is not ready says about it, in its own words."""
    refusal = parsed(REFUSAL, body)
    words = refusal.error.message if refusal else body.decode("utf-8", "replace").strip()
    return f"the engine answers {status}: {words[:SHOWN] or 'no reason given'}"


async def _work(handoff: Handoff) -> Work:
    if handoff.engine == "llamacpp":
        told = await _content(f"{handoff.url}/slots")
        return Work(slots_of(told), llama_server_usage(told, handoff.flags))
    if handoff.engine == "vllm":
        with trio.move_on_after(METRICS_LIMIT_S):
            return Work(None, vllm_usage(await _content(f"{handoff.url}/metrics")))
    return NOTHING_TOLD


def slots_of(told: bytes) -> Slots | None:
    """The slots by what /slots says, or None where that is not told."""
    slots = parsed(SLOTS, told)
    return Slots(len(slots), sum(not slot.is_processing for slot in slots)) if slots else None


async def _details(handoff: Handoff) -> Details | None:
    with trio.move_on_after(2 * LIMIT_S):
        return await description(handoff.engine, handoff.url, _content)
    return None


async def _content(url: str, *, post: bool = False) -> bytes:
    """The body of a good answer; nothing where there is none."""
    try:
        status, body = await (_post(url) if post else get(url))
    except UpstreamError:
        return b""
    return body if status == 200 else b""


async def _post(url: str) -> tuple[int, bytes]:
    """Triton lists its models in answer to an empty POST only."""
    headers = {"content-type": "application/json"}
    async with request("POST", url, headers=headers, body=b"{}", connect_s=LIMIT_S, head_s=LIMIT_S) as response:
        return response.status, await response.read(SIZE_LIMIT, LIMIT_S)
