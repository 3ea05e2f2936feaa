"""From the declarations to the document: OpenAPI 3.1 as plain JSON values."""

from pydantic import BaseModel

from llama_orch import VERSION
from llama_orch.contracts.base import NODE_ID_PATTERN, POOL_ID_PATTERN
from llama_orch.contracts.catalog import MODEL_ID_PATTERN
from llama_orch.http.server.error_shapes import shape_of
from queen_rbee.api.openapi.components import Components, Json, components
from queen_rbee.api.openapi.control import DAEMON, POOLS, TASKS
from queen_rbee.api.openapi.examples import EXAMPLES, PLAN
from queen_rbee.api.openapi.fleet import DRAINS, NODES
from queen_rbee.api.openapi.kept import ARTIFACTS, CATALOG, SESSIONS
from queen_rbee.api.openapi.operation import ARTIFACT_ID, JSON, TEXT, UUID, Answer, Operation, Parameter, Schema
from queen_rbee.api.openapi.refusals import refusals
from queen_rbee.api.openapi.v1 import ANTHROPIC, OPENAI

OPERATIONS: tuple[Operation, ...] = (
    *TASKS,
    *SESSIONS,
    *CATALOG,
    *ARTIFACTS,
    *POOLS,
    *DRAINS,
    *NODES,
    *OPENAI,
    *ANTHROPIC,
    *DAEMON,
)
VARIABLES: dict[str, tuple[str, Schema]] = {
    "task_id": ("The `task_id` of a task.", UUID),
    "session_id": ("The `session_id` of a session, which its client chooses.", UUID),
    "model_id": ("The `id` of a model of the catalog.", {**TEXT, "pattern": MODEL_ID_PATTERN}),
    "artifact_id": ("The `id` of an artifact.", {**ARTIFACT_ID, "examples": [PLAN]}),
    "model": (
        "One of the names of GET /v1/models; it may have slashes.",
        {**TEXT, "minLength": 1, "examples": ["default"]},
    ),
    "node_id": ("The `node_id` of a node.", {**TEXT, "pattern": NODE_ID_PATTERN, "examples": ["gpu-node-1"]}),
    "operation_id": ("The `operation_id` of an operation.", UUID),
    "pool_id": ("The `pool_id` of a pool.", {**TEXT, "pattern": POOL_ID_PATTERN, "examples": ["default"]}),
}
INFO: Json = {
    "title": "queen-rbee",
    "version": VERSION,
    "summary": "Language models from one's own GPUs: tasks, pools, and the interfaces of OpenAI and Anthropic.",
    "description": "A request may have `X-Correlation-Id` and `traceparent`: both are passed on and answered with. "
    "Unknown fields in bodies for /v2 are refused by name. A method that a path does not serve is answered "
    "with 405 and `Allow`. See queen-rbee(8).",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}


def openapi() -> Json:
    """The whole document."""
    known = components(OPERATIONS)
    paths: Json = {}
    for operation in OPERATIONS:
        item = paths.setdefault(operation.path, _path(operation))
        assert isinstance(item, dict)
        item[operation.method.lower()] = _operation(operation, known)
    return {
        "openapi": "3.1.1",
        "info": INFO,
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": known.document(OPERATIONS),
    }


def _path(operation: Operation) -> Json:
    variables = [_variable(name) for name in operation.variables]
    return {"parameters": [*variables]} if variables else {}


def _variable(name: str) -> Json:
    about, schema = VARIABLES[name]
    return {"name": name, "in": "path", "required": True, "description": about, "schema": dict(schema)}


def _operation(operation: Operation, known: Components) -> Json:
    said: Json = {"operationId": operation.name, "summary": operation.summary, "tags": [operation.tag]}
    if operation.about:
        said["description"] = operation.about
    if operation.parameters:
        said["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body:
        said["requestBody"] = _body(operation, operation.body, known)
    return {**said, "responses": _answers(operation, known), "security": [*_security(operation)]}


def _parameter(parameter: Parameter) -> Json:
    schema = dict(parameter.schema)
    said: Json = {"name": parameter.name, "in": parameter.place, "description": parameter.about, "schema": schema}
    return said if parameter.example is None else {**said, "example": parameter.example}


def _body(operation: Operation, body: type[BaseModel], known: Components) -> Json:
    examples: Json = {name: {"value": value} for name, value in EXAMPLES[operation.name].items()}
    return {
        "required": not operation.body_optional,
        "content": {JSON: {"schema": known.schema(body), "examples": examples}},
    }


def _answers(operation: Operation, known: Components) -> Json:
    shape = shape_of(operation.path)
    told: Json = {
        str(status): {**known.answer(answer, shape), **_links(answer)} for status, answer in operation.answers.items()
    }
    refused: Json = {
        str(status): {"$ref": f"#/components/responses/{name}"} for status, name in refusals(operation).items()
    }
    return {**told, **refused}


def _links(answer: Answer) -> Json:
    """To every operation on what the answer names, and on nothing else."""
    links: Json = {
        operation.name: {"operationId": operation.name, "parameters": {variable: f"$response.body#{pointer}"}}
        for variable, pointer in answer.names.items()
        for operation in OPERATIONS
        if operation.variables == [variable]
    }
    return {"links": links} if links else {}


def _security(operation: Operation) -> list[Json]:
    """Nothing is needed where the daemon has no token."""
    return [] if operation.open else [{}, {"bearer": []}, {"key": []}]
