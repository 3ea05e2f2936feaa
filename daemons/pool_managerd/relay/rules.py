"""What of a request and of its answer passes through the relay, and to which engine. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import unquote

from llama_orch.contracts.errors import NO_SUCH_PATH, ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.nodes import RELAY_HEADER, SESSION_HEADER, SESSION_MARK_PATTERN
from llama_orch.contracts.pools import PoolState, PoolStatus
from llama_orch.engines.relay_paths import Purpose
from pool_managerd.pools.replica import Key, Replica, workloads_of

Allows = Callable[[str, str, str], Purpose | None]
"""What a request is for, by kind of engine, method and target; None where it is not passed on."""
REFUSED = (RELAY_HEADER, "refused")
"""Beside an error of the relay's own: no engine has heard of the request."""
BROKEN = (RELAY_HEADER, "broken")
"""Likewise: an engine was asked, and there was no answer of its own."""
TARGET = re.compile(r"/v2/pools/[^/]+/engine/([^?#]+)(\?[^#]*)?")
DECODINGS = 4
ASKED_WITH = ("content-type", "accept")
NOT_PASSED = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade date server "
    f"set-cookie x-correlation-id traceparent {RELAY_HEADER}".split()
)
"""What belongs to one connection only (RFC 9110, 7.6.1), and what is this daemon's own to say."""


def inside(target: str) -> str:
    """Path and query at the engine of a request for `target`. Raises ApiError where that would lead elsewhere."""
    match = TARGET.fullmatch(target)
    if match is None or leads_out(match[1]):
        message = "the path behind /engine/ is not one inside an engine"
        hint = "It is passed on as it stands; '.' and '..' as parts of it, and '#', are not."
        raise ApiError(400, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint))
    return f"/{match[1]}{match[2] or ''}"


def leads_out(path: str) -> bool:
    """Whether `path` has a part `.` or `..`, however often it is decoded."""
    for _turn in range(DECODINGS):
        if any(part in (".", "..") for part in re.split(r"[/\\]", path)):
            return True
        decoded = unquote(path, "latin-1")
        if decoded == path:
            return False
        path = decoded
    return True


def request_headers(given: Mapping[str, str], correlation_id: str | None, trace: str | None) -> dict[str, str]:
    """What an engine is told besides the body; never the token."""
    passed = {name: given[name] for name in ASKED_WITH if name in given}
    own = {"x-correlation-id": correlation_id, "traceparent": trace}
    return passed | {name: value for name, value in own.items() if value}


def answer_headers(status: int, given: Mapping[str, str]) -> list[tuple[str, str]]:
    """What of an engine's head goes to the client."""
    left_out = NOT_PASSED | {name.strip().lower() for name in given.get("connection", "").split(",")}
    if status == 204 or "transfer-encoding" in given:
        left_out |= {"content-length"}
    return [(name, value) for name, value in given.items() if name not in left_out]


def session_of(given: Mapping[str, str]) -> str | None:
    """The mark of the request's session. One that is not of the form counts as none: nothing but speed hangs on it."""
    mark = given.get(SESSION_HEADER, "")
    return mark if re.fullmatch(SESSION_MARK_PATTERN, mark) else None


def admit(
    pool_id: str, replicas: Iterable[Replica], allows: Allows, method: str, target: str
) -> Callable[[Replica], bool]:
    """Which of `replicas` may be asked for `target`: those whose kind of engine has it on the allow-list, and which
    were started for it. Raises ApiError: 404 where it is on no list, 400 where no engine was started for it."""
    mine = [replica for replica in replicas if replica.key[0] == pool_id]
    listed = {replica.key: found for replica in mine if (found := allows(replica.handoff.engine, method, target))}
    if mine and not listed:
        body = ErrorBody(
            code=ErrorCode.NOT_FOUND,
            message=f"{method} {target[:128]} is not passed on to an engine of kind {mine[0].handoff.engine}",
            reason=NO_SUCH_PATH,
            hint="The relay passes on inference requests and health checks only: see pool-managerd(8).",
            pool_id=pool_id,
        )
        raise ApiError(404, body)
    able = {
        replica.key
        for replica in mine
        if replica.key in listed
        and listed[replica.key] in ("health", *(workloads_of(replica) or (listed[replica.key],)))
    }
    if listed and not able:
        workload = next(iter(listed.values()))
        message = f"no engine of the pool was started for {workload} tasks"
        raise ApiError(400, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, pool_id=pool_id))
    return lambda replica: replica.key in able


def choose(
    pool_id: str,
    pool: PoolStatus | None,
    replicas: Iterable[Replica],
    leases: Callable[[Key], int],
    last: int | None = None,
    may: Callable[[Replica], bool] = lambda _replica: True,
) -> Replica:
    """The engine that is asked: ready, one that `may` be, and the one of the incarnation `last` where that has room,
    otherwise the one with the fewest leases, then the most free slots. Raises ApiError."""
    if pool is None:
        raise ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message="no such pool here", pool_id=pool_id))
    ready = [replica for replica in replicas if replica.key[0] == pool_id and replica.state is PoolState.READY]
    ready = [replica for replica in ready if may(replica)]
    if pool.draining:
        raise _unready(pool_id, "the pool is draining")
    if not ready:
        raise _unready(pool_id, f"the pool is not ready: {pool.last_error or pool.state}")

    def rank(replica: Replica) -> tuple[bool, int, int, Key]:
        # room by leases: the free slots are those of the last look, which may have seen the session's turn before
        held = leases(replica.key)
        warm = replica.incarnation == last and held < replica.slots.total
        return not warm, held, -replica.slots.free, replica.key

    return min(ready, key=rank)


def _unready(pool_id: str, message: str) -> ApiError:
    return ApiError(503, ErrorBody(code=ErrorCode.POOL_UNREADY, message=message, retriable=True, pool_id=pool_id))
