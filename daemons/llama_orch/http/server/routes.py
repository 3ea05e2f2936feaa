"""Declaration of HTTP routes: one for each method and path, next to its handler.

A group of routes is a class whose methods are marked with `route` (served by Quart) or `gate_route` (served by the
gate, on the hot path). Registration (`mounting.mount`), the OpenAPI description and the check of the manual pages all
follow from these declarations.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, TypedDict, TypeVar, Unpack

from pydantic import BaseModel, JsonValue

from llama_orch.http.server.bodies import SMALL_BODY
from llama_orch.http.server.exchange import Exchange
from llama_orch.http.server.json_scan import Shape

Schema = Mapping[str, JsonValue]
Method = Literal["GET", "POST", "PUT", "DELETE", "ANY"]

JSON = "application/json"
VARIABLE = re.compile(r"\{(\w+)(?:\.\.\.)?\}")

_ROUTES = "declared_routes"


@dataclass(frozen=True)
class Deferred:
    """A model or schema that is imported only when it is needed: an idle daemon does without its memory."""

    module: str
    name: str

    def load(self) -> type[BaseModel] | Schema:
        """Import and return it."""
        loaded: type[BaseModel] | Schema = getattr(import_module(self.module), self.name)
        return loaded


Content = type[BaseModel] | Schema | Deferred


def resolve(content: Content) -> type[BaseModel] | Schema:
    """Return the model or schema, imported if it was deferred."""
    return content.load() if isinstance(content, Deferred) else content


@dataclass(frozen=True)
class Parameter:
    """A query or header parameter."""

    name: str
    description: str
    schema: Schema
    place: Literal["query", "header"] = "query"
    example: JsonValue = None


@dataclass(frozen=True)
class RequestBody:
    """The JSON body that a route takes.

    Quart routes receive it parsed, as the handler's first argument; gate routes read it themselves. `shape` and `limit`
    (bytes) bound it. An optional body that is absent is read as `{}`. `examples` are accepted as they stand.
    """

    model: type[BaseModel] | Deferred
    examples: Mapping[str, JsonValue] = field(default_factory=dict)
    shape: Shape = SMALL_BODY
    limit: int | None = None
    optional: bool = False


@dataclass(frozen=True)
class Reply:
    """A response that is not an error.

    `content` maps media types to models or schemas; it is empty for a response without a body. `headers` are those
    besides the ones that every response has. `links` maps path variables of other routes to the JSON pointer of the
    value that fills them.
    """

    description: str
    content: Mapping[str, Content] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)


def json_reply(description: str, content: Content, *headers: str, **links: str) -> Reply:
    """A JSON response; `links` as in Reply."""
    return Reply(description, {JSON: content}, headers, links)


@dataclass(frozen=True)
class Route:
    """One method of one path.

    `path` has its variables in braces; `{name...}` as the last segment matches the rest of the path. `name` is unique
    within a daemon and serves as OpenAPI's operationId. `errors` are the error statuses besides those that follow from
    the declaration itself. A `public` route needs no token. `converters` names the werkzeug converter of a variable.
    """

    method: Method
    path: str
    name: str
    summary: str
    replies: Mapping[int, Reply]
    body: RequestBody | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()
    description: str = ""
    public: bool = False
    converters: Mapping[str, str] = field(default_factory=dict)
    by_gate: bool = False
    traced: bool = False
    """Whether its requests become spans, if the daemon exports traces; for routes of the gate."""

    @property
    def variables(self) -> list[str]:
        """The names of the path's variables."""
        return VARIABLE.findall(self.path)

    @property
    def plain_path(self) -> str:
        """The path as OpenAPI writes it: `{name}` for each variable."""
        return VARIABLE.sub(r"{\1}", self.path)

    @property
    def status(self) -> int:
        """The status of a successful response where the handler does not choose one."""
        return min(self.replies)


Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])
GateHandler = TypeVar("GateHandler", bound=Callable[[Any, Exchange], Awaitable[None]])


class RouteOptions(TypedDict, total=False):
    """The optional fields of Route, as keyword arguments of the decorators."""

    body: RequestBody
    parameters: tuple[Parameter, ...]
    errors: tuple[int, ...]
    description: str
    public: bool
    converters: Mapping[str, str]
    traced: bool


def route(
    method: Method,
    path: str,
    summary: str,
    replies: Mapping[int, Reply],
    *,
    name: str = "",
    **options: Unpack[RouteOptions],
) -> Callable[[Handler], Handler]:
    """Declare a route that Quart serves.

    The handler gets the parsed body, if the route has one, then the path's variables by name. It returns a model (sent
    as JSON with the route's status), None (204 without a body) or anything that Quart takes as a response. `name`
    defaults to the handler's; `options` are fields of Route.
    """

    def declare(handler: Handler) -> Handler:
        _add(handler, Route(method, path, name or handler.__name__, summary, replies, **options))
        return handler

    return declare


def gate_route(
    method: Method,
    path: str,
    summary: str,
    replies: Mapping[int, Reply],
    *,
    name: str = "",
    **options: Unpack[RouteOptions],
) -> Callable[[GateHandler], GateHandler]:
    """Declare a route that the gate serves without Quart; the handler gets an Exchange. Otherwise as `route`."""

    def declare(handler: GateHandler) -> GateHandler:
        _add(handler, Route(method, path, name or handler.__name__, summary, replies, by_gate=True, **options))
        return handler

    return declare


def _add(handler: Callable[..., Any], declared: Route) -> None:
    # decorators apply from the bottom up; keep the order in which they are written
    handler.__dict__.setdefault(_ROUTES, []).insert(0, declared)


def routes_of(*groups: type) -> list[Route]:
    """Return the routes that the classes `groups` declare, in the order of their source."""
    return [declared for group in groups for _name, declared in _declared(group)]


def bound_routes(group: object) -> Iterator[tuple[Route, Callable[..., Awaitable[Any]]]]:
    """Yield each route of the group instance with its bound handler."""
    for name, declared in _declared(type(group)):
        yield declared, getattr(group, name)


def _declared(group: type) -> Iterator[tuple[str, Route]]:
    for name, member in vars(group).items():
        for declared in getattr(member, _ROUTES, ()):
            yield name, declared
