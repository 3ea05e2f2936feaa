"""GET /openapi.json describes exactly what is served, and is a valid document."""

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_type_hints

import jsonschema_rs
import pytest
from quart_trio import QuartTrio
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from llama_orch.contracts.artifacts import NewArtifact
from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.meta import Liveness
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.http.server.app import GROUPS as GROUPS_OF_EVERY_DAEMON
from llama_orch.http.server.exchange import HotRoutes
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.reloading import ConfigurationRoutes
from llama_orch.http.server.routes import RequestBody, Route, json_reply, resolve, route, routes_of
from llama_orch.service.reload import Reloader
from queen_rbee.api.artifacts import NEW_ARTIFACT
from queen_rbee.api.openapi.document import openapi
from queen_rbee.api.openapi.errors import MEANINGS
from queen_rbee.api.parameters import EXAMPLE_ARTIFACT_ID
from queen_rbee.api.routes import GROUPS, ROUTES
from queen_rbee.tasks.artifacts import artifact_id, canonical_document, canonical_json
from tests.unit.queen_rbee.api_client import api_client

AUTOMATIC_METHODS = {"HEAD", "OPTIONS"}
"""Methods that every path has."""
EVERY_ROUTE = pytest.mark.parametrize("declared", ROUTES, ids=lambda declared: declared.name)


@pytest.fixture(scope="module")
def document() -> Any:
    return openapi(ROUTES)


@pytest.fixture
def app(tmp_path: Path) -> QuartTrio:
    """An application with the daemon's routes."""
    app = api_client(tmp_path).app
    mount(app, None, ConfigurationRoutes(cast(Reloader, None)))
    return app


def operation(declared: Route, document: Any) -> Any:
    return document["paths"][declared.plain_path][declared.method.lower()]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a document."""
    if isinstance(value, dict):
        yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from nodes(child)


def resolved(reference: str, document: Any) -> Any:
    """Return the target of `reference`, a JSON pointer after #. Raises KeyError."""
    root, *steps = reference.split("/")
    assert root == "#"
    for step in steps:
        document = document[step.replace("~1", "/").replace("~0", "~")]
    return document


class DummyRoutes:
    @route(
        "POST",
        "/v2/dummies/{dummy_id}",
        "Change a dummy",
        {200: json_reply("The dummy.", Liveness, dummy_id="/status")},
        body=RequestBody(TaskRequest, {"one": {"prompt": "hello"}}),
        errors=(409,),
    )
    async def change_dummy(self, task: TaskRequest, dummy_id: str) -> Liveness:
        assert (task.prompt, dummy_id) == ("hello", "d")
        return Liveness(status="ok")


async def test_declared_route_is_served_and_described(app: QuartTrio) -> None:
    mount(app, HotRoutes(), DummyRoutes())
    response = await app.test_client().post("/v2/dummies/d", json={"prompt": "hello"})
    assert (response.status_code, await response.get_json()) == (200, {"status": "ok"})
    described: Any = openapi([*ROUTES, *routes_of(DummyRoutes)])
    dummy = described["paths"]["/v2/dummies/{dummy_id}"]
    assert [variable["name"] for variable in dummy["parameters"]] == ["dummy_id"]
    assert (dummy["post"]["operationId"], dummy["post"]["summary"]) == ("change_dummy", "Change a dummy")
    assert set(dummy["post"]["responses"]) == {"200", "400", "401", "403", "404", "408", "409", "413", "415", "500"}
    reply = dummy["post"]["responses"]["200"]["content"]["application/json"]
    assert reply["schema"] == {"$ref": "#/components/schemas/Liveness"}
    assert list(dummy["post"]["responses"]["200"]["links"]) == ["change_dummy"]
    assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(described)] == []


def test_handlers_take_the_bodies_they_declare() -> None:
    for group in (*GROUPS_OF_EVERY_DAEMON, *GROUPS):
        for member in vars(group).values():
            for declared in getattr(member, "declared_routes", ()):
                if declared.body and not declared.by_gate:
                    first = list(inspect.signature(member).parameters)[1]
                    assert get_type_hints(member)[first] is resolve(declared.body.model), declared.name


def test_document_describes_exactly_the_served_routes(app: QuartTrio, document: Any) -> None:
    served = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - AUTOMATIC_METHODS
    }
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item if method != "parameters"
    }
    assert described == served


async def test_document_is_served(app: QuartTrio, document: Any) -> None:
    for _time in range(2):
        answer = await app.test_client().get("/openapi.json")
        assert (answer.status_code, answer.content_type) == (200, "application/json")
        assert await answer.get_json() == document


def test_document_is_valid_openapi_3_1(document: Any) -> None:
    problems = [f"{error.instance_path}: {error.message}" for error in OPENAPI_31_VALIDATOR.iter_errors(document)]
    assert problems == []


def test_schemas_are_valid_json_schema(document: Any) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(schema), name


def test_references_have_targets(document: Any) -> None:
    references = [node["$ref"] for node in nodes(document) if isinstance(node.get("$ref"), str)]
    assert len(references) > 100
    for reference in references:
        resolved(reference, document)


def test_every_component_is_used(document: Any) -> None:
    text = str(document)
    unused = [
        name
        for kind in ("schemas", "responses", "headers")
        for name in document["components"][kind]
        if f"#/components/{kind}/{name}'" not in text
    ]
    assert unused == []


def test_operation_ids_are_unique_and_variables_declared(document: Any) -> None:
    assert len({declared.name for declared in ROUTES}) == len(ROUTES)
    for path, item in document["paths"].items():
        variables = [parameter["name"] for parameter in item.get("parameters", ())]
        assert variables == re.findall(r"\{(\w+)\}", path)


def test_links_give_the_variable_of_their_operation(document: Any) -> None:
    links = [link for node in nodes(document) for link in node.get("links", {}).values()]
    targets = {declared.name: declared.variables for declared in ROUTES}
    assert len(links) > 10
    for link in links:
        assert list(link["parameters"]) == targets[link["operationId"]]


@EVERY_ROUTE
def test_errors_are_described_in_the_format_of_the_path(declared: Route, document: Any) -> None:
    answers = operation(declared, document)["responses"]
    openai = "/v1/" in declared.path or declared.path.endswith("/rerank")
    body = "AnthropicError" if "messages" in declared.path else "OpenAiError" if openai else "ErrorBody"
    failed = {status: answers[status] for status in answers if status >= "400" and "$ref" in answers[status]}
    assert "500" in failed
    assert declared.public or {"401", "403"} <= set(failed)
    assert declared.body is None or {"400", "408", "413"} <= set(failed)
    assert not declared.variables or "404" in failed
    for answer in failed.values():
        content = resolved(answer["$ref"], document)["content"]
        assert content == {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}


@EVERY_ROUTE
def test_security_is_described(declared: Route, document: Any) -> None:
    security = operation(declared, document)["security"]
    assert security == ([] if declared.public else [{}, {"bearer": []}, {"key": []}])


def test_every_error_code_is_described() -> None:
    descriptions = " ".join(description for description, _headers in MEANINGS.values())
    assert {code for code in ErrorCode if code not in descriptions} == set()


def test_task_schema_has_the_fields_of_the_model(document: Any) -> None:
    schema = document["components"]["schemas"]["TaskRequest"]
    assert set(schema["properties"]) == set(TaskRequest.model_fields)
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("declared", [each for each in ROUTES if each.body], ids=lambda declared: declared.name)
def test_body_examples_are_valid(declared: Route, document: Any) -> None:
    body = operation(declared, document)["requestBody"]["content"]["application/json"]
    schema = jsonschema_rs.validator_for({**body["schema"], "components": document["components"]})
    assert declared.body
    model = resolve(declared.body.model)
    assert isinstance(model, type)
    assert body["examples"]
    for example in body["examples"].values():
        schema.validate(example["value"])
        assert model.model_validate_json(json.dumps(example["value"]), strict=True)


def test_example_artifact_has_the_example_id() -> None:
    plan = NewArtifact.model_validate(NEW_ARTIFACT.examples["plan"])
    assert artifact_id(canonical_document(plan, canonical_json(plan.content))) == EXAMPLE_ARTIFACT_ID


def test_prompt_schemas_accept_text_and_blocks(document: Any) -> None:
    known = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": document["components"]}
    message = jsonschema_rs.validator_for({**known, "$ref": "#/components/schemas/MessagesRequest"})
    least = {"model": "m", "max_tokens": 1}
    for content in ("hello", [{"type": "text", "text": "hello"}]):
        assert message.is_valid({**least, "messages": [{"role": "user", "content": content}]})
    assert not message.is_valid({**least, "messages": [{"role": "user", "content": [{"type": "song"}]}]})
    text = jsonschema_rs.validator_for({**known, "$ref": "#/components/schemas/Completions"})
    assert text.is_valid({"prompt": "a", "stop": ["b"]})
    assert text.is_valid({"prompt": ["a"], "stop": None})
    assert not text.is_valid({"prompt": []})
    assert not text.is_valid({"prompt": "a", "stop": 1})


def test_description_is_not_imported_at_start() -> None:
    deferred = ("api.openapi", "api.v1.chat", "api.v1.messages")
    lazy = f"[name for name in sys.modules if any(room in name for room in {deferred})]"
    program = f"import sys, queen_rbee.daemon; print(*{lazy})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []
