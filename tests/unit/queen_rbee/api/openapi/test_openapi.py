"""GET /openapi.json is true: it has what is served and nothing else, and is well made."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from quart_trio import QuartTrio
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from llama_orch.contracts.artifacts import NewArtifact
from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.http.server.app import add_hot
from queen_rbee.api.openapi.document import OPERATIONS, openapi
from queen_rbee.api.openapi.examples import EXAMPLES, PLAN
from queen_rbee.api.openapi.operation import Operation
from queen_rbee.api.openapi.refusals import MEANINGS
from queen_rbee.api.routes import hot_routes
from queen_rbee.tasks.artifacts import artifact_id, canonical_document, canonical_json
from tests.unit.queen_rbee.api_client import api_client

AUTOMATIC = {"HEAD", "OPTIONS"}
"""Methods that every path has."""
EVERY_OPERATION = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


@pytest.fixture(scope="module")
def document() -> Any:
    return openapi()


@pytest.fixture
def app(tmp_path: Path) -> QuartTrio:
    """What the daemon serves."""
    queen = api_client(tmp_path)
    add_hot(queen.app, hot_routes(queen.parts))
    return queen.app


def described(operation: Operation, document: Any) -> Any:
    return document["paths"][operation.path][operation.method.lower()]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document."""
    if isinstance(value, dict):
        yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from nodes(child)


def resolved(reference: str, document: Any) -> Any:
    """What `reference`, a JSON pointer behind #, names. Raises KeyError."""
    root, *steps = reference.split("/")
    assert root == "#"
    for step in steps:
        document = document[step.replace("~1", "/").replace("~0", "~")]
    return document


def test_what_is_served_is_described_and_what_is_described_is_served(app: QuartTrio, document: Any):
    served = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - AUTOMATIC
    }
    told = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item if method != "parameters"
    }
    assert told == served


async def test_it_is_served_as_it_was_made(app: QuartTrio, document: Any):
    for _time in range(2):
        answer = await app.test_client().get("/openapi.json")
        assert (answer.status_code, answer.content_type) == (200, "application/json")
        assert await answer.get_json() == document


def test_it_is_openapi_3_1(document: Any):
    problems = [f"{error.instance_path}: {error.message}" for error in OPENAPI_31_VALIDATOR.iter_errors(document)]
    assert problems == []


def test_every_schema_is_a_schema(document: Any):
    for name, schema in document["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(schema), name


def test_every_reference_leads_somewhere(document: Any):
    references = [node["$ref"] for node in nodes(document) if isinstance(node.get("$ref"), str)]
    assert len(references) > 100
    for reference in references:
        resolved(reference, document)


def test_no_component_is_left_over(document: Any):
    text = str(document)
    unused = [
        name
        for kind in ("schemas", "responses", "headers")
        for name in document["components"][kind]
        if f"#/components/{kind}/{name}'" not in text
    ]
    assert unused == []


def test_every_name_and_every_variable_of_a_path_is_there_once(document: Any):
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
    for path, item in document["paths"].items():
        variables = [parameter["name"] for parameter in item.get("parameters", ())]
        assert variables == re.findall(r"\{(\w+)\}", path)


def test_every_link_leads_to_an_operation_with_the_variable_it_gives(document: Any):
    links = [link for node in nodes(document) for link in node.get("links", {}).values()]
    targets = {operation.name: operation.variables for operation in OPERATIONS}
    assert len(links) > 10
    for link in links:
        assert list(link["parameters"]) == targets[link["operationId"]]


@EVERY_OPERATION
def test_an_operation_tells_its_errors_with_the_body_of_its_clients(operation: Operation, document: Any):
    answers = described(operation, document)["responses"]
    openai = "/v1/" in operation.path or operation.path.endswith("/rerank")
    body = "AnthropicError" if "messages" in operation.path else "OpenAiError" if openai else "ErrorBody"
    failed = {status: answers[status] for status in answers if status >= "400" and "$ref" in answers[status]}
    assert "500" in failed
    assert operation.open or {"401", "403"} <= set(failed)
    assert operation.body is None or {"400", "408", "413"} <= set(failed)
    assert not operation.variables or "404" in failed
    for answer in failed.values():
        content = resolved(answer["$ref"], document)["content"]
        assert content == {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}


@EVERY_OPERATION
def test_what_wants_a_token_says_so(operation: Operation, document: Any):
    security = described(operation, document)["security"]
    assert security == ([] if operation.open else [{}, {"bearer": []}, {"key": []}])


def test_every_error_code_is_told_somewhere(document: Any):
    told = " ".join(about for about, _headers in MEANINGS.values())
    unknown = {code for code in ErrorCode if code not in told}
    assert unknown == set()


def test_the_task_of_the_document_is_the_task_that_is_read(document: Any):
    schema = document["components"]["schemas"]["TaskRequest"]
    assert set(schema["properties"]) == set(TaskRequest.model_fields)
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.body], ids=lambda operation: operation.name)
def test_the_examples_of_a_body_are_read_as_they_stand(operation: Operation, document: Any):
    told = described(operation, document)["requestBody"]["content"]["application/json"]
    schema = jsonschema_rs.validator_for({**told["schema"], "components": document["components"]})
    assert told["examples"]
    for example in told["examples"].values():
        schema.validate(example["value"])
        assert operation.body
        assert operation.body.model_validate_json(json.dumps(example["value"]), strict=True)


def test_the_artifact_of_the_examples_has_the_id_of_the_examples():
    plan = NewArtifact.model_validate(EXAMPLES["add_artifact"]["plan"])
    assert artifact_id(canonical_document(plan, canonical_json(plan.content))) == PLAN


def test_a_prompt_may_be_text_or_blocks(document: Any):
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


def test_a_queen_that_nobody_asks_loads_nothing_of_it():
    unwanted = "[name for name in sys.modules if 'api.openapi' in name or 'queen_rbee.api.v1.messages' in name]"
    program = f"import sys, queen_rbee.daemon; print(*{unwanted})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []
