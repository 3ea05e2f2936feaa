"""A single query of `orchctl check`: its result, or the CommandError that says why there is none."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from pydantic import BaseModel

from llama_orch.http.client.client import UpstreamError
from llama_orch.service.exit import ExitStatus
from orchctl.client import MAX_RESPONSE_BYTES, QueenClient, parse_response, tls_hint
from orchctl.errors import CommandError

LIMIT_S = 10.0
NOT_QUERIED = CommandError("not queried", "", ExitStatus.UNAVAILABLE)

M = TypeVar("M", bound=BaseModel)


async def query(fetch: Callable[[], Awaitable[M]], url: str = "") -> M | CommandError:
    """Return the result of `fetch`, or its error; LIMIT_S seconds without a result are one.

    With `url`, the address it connects to, the error has a hint about TLS.
    """
    try:
        with trio.fail_after(LIMIT_S):
            return await fetch()
    except trio.TooSlowError:
        return CommandError(f"no answer within {LIMIT_S:g} s", "", ExitStatus.UNAVAILABLE)
    except UpstreamError as error:
        return CommandError(f"no answer: {error}", tls_hint(url, error) if url else "", ExitStatus.UNAVAILABLE)
    except CommandError as error:
        return error


async def fetch(queen: QueenClient, path: str, model: type[M]) -> M:
    """Raises CommandError and UpstreamError. A 503 of /ready is a result: the daemon is not ready."""
    async with queen.request("GET", path, allowed=(503,) if path == "/ready" else ()) as response:
        return parse_response(model, await response.read(MAX_RESPONSE_BYTES))
