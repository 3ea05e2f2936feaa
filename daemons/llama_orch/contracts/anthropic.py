"""Anthropic's list of models, as its clients read it (https://docs.claude.com/en/api/models-list)."""

from datetime import datetime
from typing import Literal

from llama_orch.contracts.base import Outbound


class AnthropicModel(Outbound):
    """A name that `model` can have. `created_at` is the epoch where nobody knows; the context is in tokens."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: datetime
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None = None


class AnthropicModels(Outbound):
    """A page of GET /v1/models; `first_id` and `last_id` are what `before_id` and `after_id` of the next ask for."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None
