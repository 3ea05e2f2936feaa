"""One question of `orchctl check`: answered within a limit, or by the CommandError that says why not."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from pydantic import BaseModel

from llama_orch.http.client.client import UpstreamError
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, understood
from orchctl.errors import CommandError
from orchctl.tls_hints import over_tls

LIMIT_S = 10.0
"""How long one answer may take, in seconds."""
NOT_ASKED = CommandError("it was not asked", "", ExitStatus.UNAVAILABLE)

M = TypeVar("M", bound=BaseModel)


async def limited(ask: Callable[[], Awaitable[M]], url: str = "") -> M | CommandError:
    """What `ask` finds within LIMIT_S seconds, or why it does not; `url`: where it asks, if that is to be explained."""
    try:
        with trio.fail_after(LIMIT_S):
            return await ask()
    except trio.TooSlowError:
        return CommandError(f"there is no answer within {LIMIT_S:g} s", "", ExitStatus.UNAVAILABLE)
    except UpstreamError as error:
        return CommandError(f"there is no answer: {error}", over_tls(url, error) if url else "", ExitStatus.UNAVAILABLE)
    except CommandError as failure:
        return failure


async def answer(queen: QueenClient, path: str, model: type[M]) -> M:
    """One answer; that a daemon is not ready is one. Raises CommandError and UpstreamError."""
    async with queen.ask("GET", path, allowed=(503,) if path == "/ready" else ()) as response:
        return understood(model, await response.read(64 << 20))
