"""Speaking to the queen: registration, heartbeats, farewell. Each is one request with a limit; what comes of it is an
Outcome and never an exception.
"""

import math
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio
from pydantic import BaseModel, TypeAdapter, ValidationError

from llama_orch.contracts.errors import ErrorBody
from llama_orch.contracts.nodes import Heartbeat, HeartbeatAnswer, NodeRegistered, NodeRegistration
from llama_orch.http.client.client import UpstreamError, request
from llama_orch.settings.types import Secret
from pool_managerd.cluster.registration import HeartbeatAccepted, NoAnswer, NodeUnknown, Outcome, Registered, Rejected

LIMIT_S = 5.0
CONNECT_S = 3.0
ANSWER_LIMIT = 1 << 20
SHOWN = 400
NOT_UNDERSTOOD = Rejected("its answer is not understood; do the versions differ?")

ERROR = TypeAdapter(ErrorBody)


class QueenClient(Protocol):
    """What the agent asks of her."""

    async def register(self, node: NodeRegistration) -> Outcome:
        """Make the node known."""

    async def heartbeat(self, node_id: str, beat: Heartbeat) -> Outcome:
        """Tell how the node and its pools are."""

    async def forget(self, node_id: str, instance_id: str) -> Outcome:
        """Take leave; NodeUnknown when that is done. Rejected where another instance has registered meanwhile."""


@dataclass(frozen=True)
class HttpQueenClient:
    """The queen at `url`, asked with `token`."""

    url: str
    token: Secret
    tls: ssl.SSLContext | None = None

    async def register(self, node: NodeRegistration) -> Outcome:
        """POST /v2/nodes/register."""
        return await self._ask("POST", "register", node, registration_outcome)

    async def heartbeat(self, node_id: str, beat: Heartbeat) -> Outcome:
        """POST /v2/nodes/{id}/heartbeat."""
        return await self._ask("POST", f"{node_id}/heartbeat", beat, heartbeat_outcome)

    async def forget(self, node_id: str, instance_id: str) -> Outcome:
        """DELETE /v2/nodes/{id}."""
        return await self._ask("DELETE", f"{node_id}?instance_id={instance_id}", None, farewell_outcome)

    async def _ask(
        self, method: str, path: str, body: BaseModel | None, outcome: Callable[[int, bytes], Outcome]
    ) -> Outcome:
        headers = {"authorization": f"Bearer {self.token.get_secret_value()}", "content-type": "application/json"}
        content = b"" if body is None else body.model_dump_json().encode()
        asking = partial(request, method, f"{self.url}/v2/nodes/{path}", headers=headers, body=content, tls=self.tls)
        try:
            with trio.fail_after(LIMIT_S):
                async with asking(connect_s=CONNECT_S, head_s=math.inf) as response:
                    status, answer = response.status, await response.read(ANSWER_LIMIT)
        except trio.TooSlowError:
            return NoAnswer(f"no answer within {LIMIT_S:g} s")
        except UpstreamError as error:
            return NoAnswer(str(error))
        if status >= 500 or status == 429:
            return NoAnswer(complaint(status, answer))
        if status == 401:
            return Rejected(f"{complaint(status, answer)} (this node's is {self.token})")
        return outcome(status, answer)


def registration_outcome(status: int, body: bytes) -> Outcome:
    """What an answer to a registration means."""
    if status in (404, 405):
        return Rejected(f"it takes no registrations ({status}): is ORCHESTRATORD_CLOUD_PROFILE=true set there?")
    if status != 200:
        return Rejected(complaint(status, body))
    try:
        told = NodeRegistered.model_validate_json(body)
    except ValidationError:
        return NOT_UNDERSTOOD
    return Registered(told.message, told.warning) if told.success else Rejected(told.message)


def heartbeat_outcome(status: int, body: bytes) -> Outcome:
    """What an answer to a heartbeat means."""
    if status == 404:
        return NodeUnknown()
    if status != 200:
        return Rejected(complaint(status, body))
    try:
        told = HeartbeatAnswer.model_validate_json(body)
    except ValidationError:
        return NOT_UNDERSTOOD
    heard = HeartbeatAccepted(told.next_heartbeat_ms, told.warning)
    return heard if told.success else Rejected("it did not take the heartbeat")


def farewell_outcome(status: int, body: bytes) -> Outcome:
    """What an answer to a farewell means."""
    return NodeUnknown() if status in (200, 204, 404) else Rejected(complaint(status, body))


def complaint(status: int, body: bytes) -> str:
    """What the queen says is wrong, in her own words."""
    try:
        told = ERROR.validate_json(body)
        words = f"{told.message}. {told.hint}" if told.hint else told.message
    except ValidationError:
        words = body.decode("utf-8", "replace")
    return f"it answers {status}: {' '.join(words.split())[:SHOWN] or 'no reason given'}"
