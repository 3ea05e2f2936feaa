"""Engine kinds and workloads as they appear in handoff files, pools files and tasks."""

from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

Workload = Literal["completion", "embedding", "rerank"]


def engine_kinds() -> tuple[str, ...]:
    """Return the names of all registered engine kinds, in the order of `llama_orch.engines.KINDS`.

    Imported on first use: the modules of the kinds import these contracts.
    """
    return tuple(import_module("llama_orch.engines").KINDS)


class _OneOfTheKinds:
    """Validates like a Literal of `engine_kinds()`, which are known only after this module was imported."""

    @staticmethod
    def __get_pydantic_core_schema__(_source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_validate)

    @staticmethod
    def __get_pydantic_json_schema__(_schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": list(engine_kinds()), "type": "string"}


def _validate(value: object) -> str:
    kinds = engine_kinds()
    if isinstance(value, str) and value in kinds:
        return value
    *others, last = map(repr, kinds)
    raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})


DEFAULT_ENGINE = "llamacpp"

EngineKind = Annotated[str, _OneOfTheKinds]
"""The name of an engine kind."""
