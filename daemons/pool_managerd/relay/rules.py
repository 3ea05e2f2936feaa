"""The relay's rules: which paths and headers pass, and which engine gets a request. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import unquote

from llama_orch.contracts.errors import NO_SUCH_PATH, ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.nodes import RELAY_HEADER, SESSION_HEADER, SESSION_MARK_PATTERN
from llama_orch.contracts.pools import PoolState, PoolStatus
from llama_orch.engines.relay_paths import Purpose
from pool_managerd.pools.replica import Key, Replica, workloads_of

Allow = Callable[[str, str, str], Purpose | None]
"""Returns what a request is for, by engine kind, method and target; None: it is not passed on."""
REFUSED = (RELAY_HEADER, "refused")
"""The header of the relay's own errors if no engine has received the request."""
BROKEN = (RELAY_HEADER, "broken")
"""The header of the relay's own errors if an engine has received the request but did not answer completely."""
TARGET = re.compile(r"/v2/pools/[^/]+/engine/([^?#]+)(\?[^#]*)?")
DECODINGS_MAX = 4
REQUEST_HEADERS = ("content-type", "accept")
DROPPED_HEADERS = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade date server "
    f"set-cookie x-correlation-id traceparent {RELAY_HEADER}".split()
)
"""Headers of one connection (RFC 9110, 7.6.1), and those that this daemon sets itself."""


def engine_target(target: str) -> str:
    """Return path and query at the engine. Raises ApiError for a path that would leave the engine's root."""
    match = TARGET.fullmatch(target)
    if match is None or has_dot_segments(match[1]):
        message = "the path after /engine/ has a segment '.' or '..', or a '#'"
        hint = "The path is passed on unchanged; remove these parts."
        raise ApiError(400, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint))
    return f"/{match[1]}{match[2] or ''}"


def has_dot_segments(path: str) -> bool:
    """Whether `path` has a segment `.` or `..` after any number of percent-decodings."""
    for _decoding in range(DECODINGS_MAX):
        if any(part in (".", "..") for part in re.split(r"[/\\]", path)):
            return True
        decoded = unquote(path, "latin-1")
        if decoded == path:
            return False
        path = decoded
    return True


def request_headers(given: Mapping[str, str], correlation_id: str | None, trace: Mapping[str, str]) -> dict[str, str]:
    """Return the headers for the engine; never the token. `trace` are those that name the trace."""
    passed = {name: given[name] for name in REQUEST_HEADERS if name in given}
    return passed | ({"x-correlation-id": correlation_id} if correlation_id else {}) | dict(trace)


def answer_headers(status: int, given: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the engine's headers that go to the client."""
    dropped = DROPPED_HEADERS | {name.strip().lower() for name in given.get("connection", "").split(",")}
    if status == 204 or "transfer-encoding" in given:
        dropped |= {"content-length"}
    return [(name, value) for name, value in given.items() if name not in dropped]


def session_of(given: Mapping[str, str]) -> str | None:
    """Return the mark of the request's session. A malformed one is ignored: it is only an optimisation."""
    mark = given.get(SESSION_HEADER, "")
    return mark if re.fullmatch(SESSION_MARK_PATTERN, mark) else None


def admit(
    pool_id: str, replicas: Iterable[Replica], allows: Allow, method: str, target: str
) -> Callable[[Replica], bool]:
    """Return a predicate for the engines that may get a request for `target`.

    Their kind has it on the allow-list, and they were started for its workload. Raises ApiError: 404 if it is on no
    list, 400 if no engine of the pool was started for the workload.
    """
    mine = [replica for replica in replicas if replica.key[0] == pool_id]
    listed = {replica.key: found for replica in mine if (found := allows(replica.handoff.engine, method, target))}
    if mine and not listed:
        body = ErrorBody(
            code=ErrorCode.NOT_FOUND,
            message=f"{method} {target[:128]} is not relayed to engines of kind {mine[0].handoff.engine}",
            reason=NO_SUCH_PATH,
            hint="Only inference requests and health checks are relayed: see pool-managerd(8).",
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
    """Return the engine for a request. Raises ApiError if none is ready.

    Of the ready engines that `may` take it, the one of the incarnation `last` if it has a free slot, otherwise the one
    with the fewest leases, then the most free slots.
    """
    if pool is None:
        raise ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message="this node has no such pool", pool_id=pool_id))
    ready = [replica for replica in replicas if replica.key[0] == pool_id and replica.state is PoolState.READY]
    ready = [replica for replica in ready if may(replica)]
    if pool.draining:
        raise _unready(pool_id, "the pool is draining")
    if not ready:
        raise _unready(pool_id, f"the pool is not ready: {pool.last_error or pool.state}")

    def rank(replica: Replica) -> tuple[bool, int, int, Key]:
        # by leases: the last probe's free slots may still count the session's previous turn
        held = leases(replica.key)
        warm = replica.incarnation == last and held < replica.slots.total
        return not warm, held, -replica.slots.free, replica.key

    return min(ready, key=rank)


def _unready(pool_id: str, message: str) -> ApiError:
    return ApiError(503, ErrorBody(code=ErrorCode.POOL_UNREADY, message=message, retriable=True, pool_id=pool_id))
