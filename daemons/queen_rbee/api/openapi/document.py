"""The OpenAPI 3.1 document as plain JSON values."""

from collections.abc import Sequence

from llama_orch import VERSION
from llama_orch.http.server.error_shapes import shape_of
from llama_orch.http.server.routes import JSON, Parameter, Reply, RequestBody, Route
from queen_rbee.api.openapi.components import Components, Json, build_components, reference
from queen_rbee.api.openapi.errors import error_components
from queen_rbee.api.parameters import PATH_VARIABLES, TEXT

INFO: Json = {
    "title": "queen-rbee",
    "version": VERSION,
    "summary": "Serve large language models from one's own GPUs: tasks, pools, and the APIs of OpenAI, "
    "Anthropic and Ollama.",
    "description": "A request may have the headers `X-Correlation-Id` and `traceparent`: both are passed to the engine "
    "and returned in the response. Bodies under /v2 with unknown fields are refused, and the error names the fields. A "
    "method that a path does not support gets 405 with `Allow`. See queen-rbee(8).",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}


def openapi(routes: Sequence[Route]) -> Json:
    """Describe `routes`."""
    components = build_components(routes)
    paths: Json = {}
    for route in routes:
        item = paths.setdefault(route.plain_path, _path(route))
        assert isinstance(item, dict)
        item[route.method.lower()] = _operation(route, routes, components)
    return {
        "openapi": "3.1.1",
        "info": INFO,
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components.document(routes),
    }


def _path(route: Route) -> Json:
    variables = [_variable(name) for name in route.variables]
    return {"parameters": [*variables]} if variables else {}


def _variable(name: str) -> Json:
    description, schema = PATH_VARIABLES.get(name, (f"The `{name}`.", TEXT))
    return {"name": name, "in": "path", "required": True, "description": description, "schema": dict(schema)}


def _operation(route: Route, routes: Sequence[Route], components: Components) -> Json:
    operation: Json = {"operationId": route.name, "summary": route.summary, "tags": [_tag(route)]}
    if route.description:
        operation["description"] = route.description
    if route.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in route.parameters]
    if route.body:
        operation["requestBody"] = _request_body(route.body, components)
    return {**operation, "responses": _responses(route, routes, components), "security": [*_security(route)]}


def _tag(route: Route) -> str:
    """Return the first segment of the path that is not the version; `daemon` outside of /v1 and /v2."""
    first, *rest = route.path.strip("/").split("/")
    return rest[0] if first == "v2" else first if first == "v1" else "daemon"


def _parameter(parameter: Parameter) -> Json:
    described: Json = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }
    return described if parameter.example is None else {**described, "example": parameter.example}


def _request_body(body: RequestBody, components: Components) -> Json:
    examples: Json = {name: {"value": value} for name, value in body.examples.items()}
    return {
        "required": not body.optional,
        "content": {JSON: {"schema": components.schema(body.model), "examples": examples}},
    }


def _responses(route: Route, routes: Sequence[Route], components: Components) -> Json:
    shape = shape_of(route.plain_path)
    replies: Json = {
        str(status): {**components.response(reply, shape), **_links(reply, routes)}
        for status, reply in route.replies.items()
    }
    errors: Json = {str(status): reference("responses", name) for status, name in error_components(route).items()}
    return {**replies, **errors}


def _links(reply: Reply, routes: Sequence[Route]) -> Json:
    """Link to every route whose only path variable is one that the reply has a value for."""
    links: Json = {
        route.name: {"operationId": route.name, "parameters": {variable: f"$response.body#{pointer}"}}
        for variable, pointer in reply.links.items()
        for route in routes
        if route.variables == [variable]
    }
    return {"links": links} if links else {}


def _security(route: Route) -> list[Json]:
    """The first alternative, no credentials, is for daemons without a token."""
    return [] if route.public else [{}, {"bearer": []}, {"key": []}]
