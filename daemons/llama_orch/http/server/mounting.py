"""Registration of declared routes with Quart and with the gate's table."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from pydantic import BaseModel
from quart import Response
from quart.typing import ResponseReturnValue
from quart_trio import QuartTrio

from llama_orch.http.server.exchange import ANY, HotRoutes
from llama_orch.http.server.posted import body_of, body_or
from llama_orch.http.server.routes import JSON, RequestBody, Route, bound_routes, resolve

ONE_AT_A_TIME = trio.CapacityLimiter(1)
"""For long lists. Each holds the interpreter's lock; many at once would starve the event loop."""


def mount(app: QuartTrio, gate_routes: HotRoutes | None, *groups: object) -> None:
    """Register the routes of `groups`; `gate_routes` may be None if the gate serves none of them.

    Quart also learns the paths that the gate serves, so that its 405 responses and its answers to OPTIONS name every
    method of a path. A gate route for any method needs no such entry: Quart never sees its path.
    """
    for group in groups:
        for route, handler in bound_routes(group):
            if route.by_gate:
                assert gate_routes is not None
                gate_routes.add(route.method, route.path, handler, traced=route.traced)
                if route.method != ANY:
                    _add_rule(app, route, _never_reached)
            else:
                _add_rule(app, route, _quart_view(route, handler))


def json_response(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status=status, content_type=JSON)


async def json_response_in_thread(build: Callable[[], BaseModel]) -> Response:
    """Build and serialize a long list in a thread: thousands of pools take 0.3 s, which would delay heartbeats and
    streams."""
    text = await trio.to_thread.run_sync(lambda: build().model_dump_json(), limiter=ONE_AT_A_TIME)
    return Response(text, content_type=JSON)


def _add_rule(app: QuartTrio, route: Route, view: Callable[..., Any]) -> None:
    rule = route.path
    for name in route.variables:
        converter = route.converters.get(name)
        rule = rule.replace(f"{{{name}}}", f"<{converter}:{name}>" if converter else f"<{name}>")
        rule = rule.replace(f"{{{name}...}}", f"<path:{name}>")
    app.add_url_rule(rule, f"{route.method} {route.path}", view, methods=[route.method])


def _quart_view(route: Route, handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[ResponseReturnValue]]:
    async def view(**variables: str) -> ResponseReturnValue:
        bodies = [await _read(route.body)] if route.body else []
        result = await handler(*bodies, **variables)
        if result is None:
            return Response("", status=204)  # with None as its body, Quart looks for an asyncio loop
        if isinstance(result, BaseModel):
            return json_response(result, route.status)
        response: ResponseReturnValue = result
        return response

    return view


async def _read(body: RequestBody) -> BaseModel:
    model = resolve(body.model)
    assert isinstance(model, type)
    if body.optional:
        return await body_or(model, model())
    return await body_of(model, body.shape, body.limit)


async def _never_reached(**_variables: str) -> Response:
    raise RuntimeError("a request for a route of the gate has reached Quart")
