"""Ollama's `options`: which of them engines get, and which are without effect here. Pure.

How an engine is run (context, GPU layers, batch size) is set in pools.toml, so options for that are ignored. An option
that is not known is refused: it might change the answer.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, JsonValue, StringConstraints, model_validator

from queen_rbee.api.v1.chat.fields import Lenient

MAX_TOKENS = 16_777_216
SEEDS = 2**63
ENGINE = "num_ctx num_batch num_gpu main_gpu num_thread num_keep numa draft_num_predict embedding_only"
MEMORY = "low_vram f16_kv logits_all vocab_only use_mmap use_mlock"
IGNORED = frozenset((*ENGINE.split(), *MEMORY.split()))
"""Options for how the engine is run."""
WITHOUT_EFFECT = frozenset({"tfs_z", "penalize_newline"})
"""Options that Ollama accepts although its engine does not have them any more."""


def _whole(given: object) -> object:
    """Convert 8.0 to 8: in JSON they are the same number."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


Whole = Annotated[int, BeforeValidator(_whole)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Penalty = Annotated[float, Field(ge=-100, le=100)]


class Options(Lenient):
    """The options that change the answer. llama-server has all of them, under the same names but for three."""

    num_predict: Annotated[Whole, Field(ge=-MAX_TOKENS, le=MAX_TOKENS)] | None = None
    seed: Annotated[Whole, Field(ge=-SEEDS, lt=SEEDS)] | None = None
    stop: Annotated[list[StopText], Field(max_length=256)] | StopText | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[Whole, Field(ge=-1, le=1_000_000)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Field(ge=0, le=100)] | None = None
    repeat_last_n: Annotated[Whole, Field(ge=-1, le=MAX_TOKENS)] | None = None
    repeat_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    mirostat: Annotated[Whole, Field(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[float, Field(ge=0, le=1000)] | None = None
    mirostat_eta: Annotated[float, Field(ge=0, le=1000)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        known = cls.model_fields.keys() | IGNORED | WITHOUT_EFFECT
        for name, value in given.items():
            if name not in known and value is not None:
                raise ValueError(f"{str(name)[:64]}: is not an option that is known here, and might change the answer")
        return given


RENAMED = frozenset({"num_predict", "stop"})
"""Options whose names in OpenAI's API differ, or whose values."""


def sampling(options: Options | None) -> dict[str, JsonValue]:
    """Return the fields of an OpenAI request that have the meaning of `options`.

    `repetition_penalty` is vLLM's name of `repeat_penalty`; each engine ignores the other's.
    """
    if options is None:
        return {}
    body: dict[str, JsonValue] = options.model_dump(exclude_none=True, exclude=set(RENAMED))
    if tokens := max_tokens(options):
        body["max_tokens"] = tokens
    if options.stop:
        body["stop"] = [options.stop] if isinstance(options.stop, str) else list(options.stop)
    if options.repeat_penalty is not None:
        body["repetition_penalty"] = options.repeat_penalty
    return body


def max_tokens(options: Options | None) -> int | None:
    """Return the limit of the answer; None for none, which Ollama writes as -1, -2 or 0."""
    tokens = options.num_predict if options else None
    return tokens if tokens is not None and tokens > 0 else None
