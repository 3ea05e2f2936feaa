"""What the operations of the document refer to: schemas, made by pydantic of the models, answers and headers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, JsonValue
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core.core_schema import WithDefaultSchema

from llama_orch.contracts.stream import EVENTS
from llama_orch.http.server.error_shapes import ErrorFormat, shape_of
from queen_rbee.api.openapi.headers import EVERYWHERE, HEADERS
from queen_rbee.api.openapi.operation import Answer, Body, Operation
from queen_rbee.api.openapi.refusals import BODIES, refusal, refusals

Json = dict[str, JsonValue]

SECURITY: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "LLORCH_API_TOKEN, where the daemon has one."},
    "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "The same token."},
}


class _Terse(GenerateJsonSchema):
    """Without the titles that only say a field's name again, and without `null` as a default: it says no more than that
    the field may be left out."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        return {key: value for key, value in found.items() if (key, value) != ("default", None)}


@dataclass(frozen=True)
class Components:
    """The schemas by their names, and how each model is referred to."""

    schemas: Json
    references: Mapping[type[BaseModel], Json]

    def schema(self, body: Body) -> Json:
        """The schema of a body."""
        return self.references[body] if isinstance(body, type) else dict(body)

    def answer(self, answer: Answer, shape: ErrorFormat) -> Json:
        """An answer to clients of `shape`."""
        headers: Json = {name: to("headers", name) for name in (*EVERYWHERE[shape], *answer.headers)}
        content: Json = {media: {"schema": self.schema(body)} for media, body in answer.content.items()}
        return {"description": answer.about, "headers": headers, **({"content": content} if content else {})}

    def document(self, operations: Iterable[Operation]) -> Json:
        """The components that `operations` refer to."""
        answers: Json = {}
        for operation in operations:
            shape = shape_of(operation.path)
            for status, name in refusals(operation).items():
                answers[name] = self.answer(refusal(shape, status), shape)
        headers: Json = {name: _header(name) for name in HEADERS}
        return {"schemas": self.schemas, "responses": answers, "headers": headers, "securitySchemes": SECURITY}


def components(operations: Iterable[Operation]) -> Components:
    """The components of all models: bodies of requests as they are read, all else as it is written."""
    read = [operation.body for operation in operations if operation.body]
    written = [*_answers(operations), *EVENTS.values(), *BODIES.values()]
    asked: dict[type[BaseModel], JsonSchemaMode] = {
        **dict.fromkeys(read, "validation"),
        **dict.fromkeys(written, "serialization"),
    }
    found, schemas = models_json_schema(
        [*asked.items()],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Terse,
    )
    return Components(schemas["$defs"], {model: found[model, mode] for model, mode in asked.items()})


def _answers(operations: Iterable[Operation]) -> Iterable[type[BaseModel]]:
    for operation in operations:
        for answer in operation.answers.values():
            yield from (body for body in answer.content.values() if isinstance(body, type))


def _header(name: str) -> Json:
    about, schema, required = HEADERS[name]
    return {"description": about, "required": required, "schema": dict(schema)}


def to(kind: str, name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}
