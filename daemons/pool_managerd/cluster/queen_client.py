"""Client for queen-rbee's node API: registration, heartbeats, deregistration.

Each call is one request with a time limit. It returns an Outcome and raises nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio
from pydantic import BaseModel, TypeAdapter, ValidationError

from llama_orch.contracts.errors import ErrorBody
from llama_orch.contracts.nodes import Heartbeat, HeartbeatAnswer, NodeRegistered, NodeRegistration
from llama_orch.http.client.client import UpstreamError, request
from llama_orch.http.tls.current import NO_TLS, CurrentTls
from llama_orch.settings.types import Secret
from pool_managerd.cluster.registration import (
    HeartbeatAccepted,
    NoAnswer,
    NodeUnknown,
    Outcome,
    Registered,
    Rejected,
)

LIMIT_S = 5.0
CONNECT_S = 3.0
ANSWER_LIMIT = 1 << 20
MESSAGE_LIMIT = 400
NOT_UNDERSTOOD = Rejected("its answer cannot be parsed; check that both daemons have the same version")

ERROR = TypeAdapter(ErrorBody)


class QueenClient(Protocol):
    """What the agent asks of the queen."""

    async def register(self, node: NodeRegistration) -> Outcome: ...

    async def heartbeat(self, node_id: str, heartbeat: Heartbeat) -> Outcome: ...

    async def forget(self, node_id: str, instance_id: str) -> Outcome:
        """Deregister the node: NodeUnknown when done, Rejected if another instance has registered since."""


@dataclass(frozen=True)
class HttpQueenClient:
    """Client for the queen at `url`."""

    url: str
    token: Secret
    tls: CurrentTls = NO_TLS

    async def register(self, node: NodeRegistration) -> Outcome:
        """POST /v2/nodes/register."""
        return await self._ask("POST", "register", node, registration_outcome)

    async def heartbeat(self, node_id: str, heartbeat: Heartbeat) -> Outcome:
        """POST /v2/nodes/{id}/heartbeat."""
        return await self._ask("POST", f"{node_id}/heartbeat", heartbeat, heartbeat_outcome)

    async def forget(self, node_id: str, instance_id: str) -> Outcome:
        """DELETE /v2/nodes/{id}."""
        return await self._ask("DELETE", f"{node_id}?instance_id={instance_id}", None, deregistration_outcome)

    async def _ask(
        self, method: str, path: str, body: BaseModel | None, outcome: Callable[[int, bytes], Outcome]
    ) -> Outcome:
        headers = {"authorization": f"Bearer {self.token.get_secret_value()}", "content-type": "application/json"}
        content = b"" if body is None else body.model_dump_json().encode()
        url, tls = f"{self.url}/v2/nodes/{path}", self.tls.client
        asking = partial(request, method, url, headers=headers, body=content, tls=tls)
        try:
            with trio.fail_after(LIMIT_S):
                async with asking(connect_s=CONNECT_S, head_s=math.inf) as response:
                    status, answer = response.status, await response.read(ANSWER_LIMIT)
        except trio.TooSlowError:
            return NoAnswer(f"no answer within {LIMIT_S:g} s")
        except UpstreamError as error:
            return NoAnswer(str(error))
        if status >= 500 or status == 429:
            return NoAnswer(error_text(status, answer))
        if status == 401:
            return Rejected(f"{error_text(status, answer)} (this node's token is {self.token})")
        return outcome(status, answer)


def registration_outcome(status: int, body: bytes) -> Outcome:
    if status in (404, 405):
        return Rejected(f"it does not accept registrations ({status}); set ORCHESTRATORD_CLOUD_PROFILE=true there")
    if status != 200:
        return Rejected(error_text(status, body))
    try:
        answer = NodeRegistered.model_validate_json(body)
    except ValidationError:
        return NOT_UNDERSTOOD
    return Registered(answer.message, answer.warning) if answer.success else Rejected(answer.message)


def heartbeat_outcome(status: int, body: bytes) -> Outcome:
    if status == 404:
        return NodeUnknown()
    if status != 200:
        return Rejected(error_text(status, body))
    try:
        answer = HeartbeatAnswer.model_validate_json(body)
    except ValidationError:
        return NOT_UNDERSTOOD
    accepted = HeartbeatAccepted(answer.next_heartbeat_ms, answer.warning, answer.may_sleep)
    return accepted if answer.success else Rejected("it did not accept the heartbeat")


def deregistration_outcome(status: int, body: bytes) -> Outcome:
    return NodeUnknown() if status in (200, 204, 404) else Rejected(error_text(status, body))


def error_text(status: int, body: bytes) -> str:
    """Describe an error answer, with the queen's own message and hint."""
    try:
        error = ERROR.validate_json(body)
        message = f"{error.message}. {error.hint}" if error.hint else error.message
    except ValidationError:
        message = body.decode("utf-8", "replace")
    return f"it answers {status}: {' '.join(message.split())[:MESSAGE_LIMIT] or 'no reason given'}"
