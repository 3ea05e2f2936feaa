"""Run the work for a request while its client is connected."""

from collections.abc import Awaitable, Callable

import trio

from llama_orch.contracts.errors import ApiError
from llama_orch.http.server.exchange import ClientGone, Exchange


async def while_connected(exchange: Exchange, act: Callable[[], Awaitable[None]]) -> None:
    """Run `act`, and cancel it if the client leaves. Raises ClientGone, and the ApiError of `act`, never in a group."""
    scope, failures = trio.CancelScope(), list[ApiError]()

    async def attempt() -> None:
        try:
            with scope:
                await act()
        except ApiError as error:
            failures.append(error)

    await exchange.accompany(attempt, scope.cancel)
    if scope.cancelled_caught:
        raise ClientGone
    if failures:
        raise failures[0]
