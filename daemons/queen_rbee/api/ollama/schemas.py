"""Answers of Ollama's API that are built whole, and the lines of its streams for the API description."""

from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from llama_orch.contracts.base import Outbound


class ModelDetails(Outbound):
    """What is known of a model's file; "" is unknown. `format` is `gguf` for llama.cpp."""

    parent_model: str = ""
    format: str = ""
    family: str = ""
    families: list[str] | None = None
    parameter_size: str = ""
    quantization_level: str = ""


class ListedModel(Outbound):
    """A name that requests can have. `digest` is that of the file if it was verified, else one of the name. `size` is
    in bytes, 0 if unknown."""

    name: str
    model: str
    modified_at: datetime
    size: int
    digest: str
    details: ModelDetails


class ModelTags(Outbound):
    """GET /api/tags."""

    models: list[ListedModel]


class LoadedModel(Outbound):
    """A model in memory; sizes in bytes. `expires_at` is a hundred years ahead if it is kept loaded."""

    name: str
    model: str
    size: int
    digest: str
    details: ModelDetails
    expires_at: datetime
    size_vram: int
    context_length: int


class LoadedModels(Outbound):
    """GET /api/ps."""

    models: list[LoadedModel]


class ShownModel(Outbound):
    """POST /api/show. Templates and licenses are in the model's file, which the queen does not read."""

    license: str = ""
    modelfile: str
    parameters: str
    template: str = ""
    details: ModelDetails
    model_info: dict[str, JsonValue]
    capabilities: list[str]
    modified_at: datetime


class OllamaVersion(Outbound):
    """GET /api/version: the release of Ollama whose API this is."""

    version: str


class AnswerMessage(Outbound):
    """The message of an answer, or a piece of it."""

    role: Literal["assistant"]
    content: str
    thinking: str | None = None
    tool_calls: list[dict[str, JsonValue]] | None = None


class AnswerLine(Outbound):
    """A piece of an answer; the last one, or a whole answer, is `done` and has the figures. Durations are in ns."""

    model: str
    created_at: datetime
    done: bool
    done_reason: str | None = None
    logprobs: list[dict[str, JsonValue]] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class OllamaChat(AnswerLine):
    """POST /api/chat."""

    message: AnswerMessage


class OllamaGeneration(AnswerLine):
    """POST /api/generate."""

    response: str
    thinking: str | None = None


class OllamaEmbeddings(Outbound):
    """POST /api/embed: one embedding for each text."""

    model: str
    embeddings: list[list[float]]
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None


class OllamaEmbedding(Outbound):
    """POST /api/embeddings."""

    embedding: list[float]


class PullProgress(Outbound):
    """A line of POST /api/pull; the last one has the status `success`. Counts are in bytes."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None
