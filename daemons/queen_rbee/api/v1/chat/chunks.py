"""The fields of OpenAI chat chunks that answers in other APIs are built from. Engines add and omit fields freely.

Field names as measured with llama-server (`reasoning_content`) and as vLLM documents them (`reasoning`).
"""

import json

from pydantic import JsonValue

from queen_rbee.api.v1.chat.fields import Lenient


class FunctionFragment(Lenient):
    """First the name, then the arguments as JSON text in pieces. Some engines send the arguments as an object."""

    name: str | None = None
    arguments: JsonValue = None


class ToolCallFragment(Lenient):
    """A fragment of the tool call number `index`."""

    index: int | None = None
    id: str | None = None
    function: FunctionFragment | None = None

    @property
    def name(self) -> str:
        """The tool's name, or "" if this fragment does not have it."""
        return (self.function and self.function.name) or ""

    @property
    def arguments(self) -> str:
        """A piece of the arguments' JSON text."""
        given = self.function.arguments if self.function else None
        if given is None or isinstance(given, str):
            return given or ""
        return json.dumps(given, ensure_ascii=False)


class ChunkDelta(Lenient):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[ToolCallFragment, ...] | None = None

    @property
    def thoughts(self) -> str | None:
        """The reasoning text. Some engines send it under both names."""
        return self.reasoning_content or self.reasoning


class ChunkChoice(Lenient):
    """`stop_reason` is vLLM's: the stop sequence that was matched, or a token id."""

    delta: ChunkDelta | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class PromptTokenDetails(Lenient):
    cached_tokens: int | None = None


class CompletionTokenDetails(Lenient):
    reasoning_tokens: int | None = None


class ChatUsage(Lenient):
    """Token counts. `prompt_tokens` include cached ones, `completion_tokens` those of reasoning."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptTokenDetails | None = None
    completion_tokens_details: CompletionTokenDetails | None = None

    @property
    def cached(self) -> int | None:
        """Prompt tokens found in the prefix cache, or None if the engine does not report them."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None

    @property
    def reasoning(self) -> int | None:
        """Tokens of reasoning, or None if the engine does not report them."""
        return self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else None


class PromptProgress(Lenient):
    """llama-server's report on reading the prompt: its tokens, and those found in the prefix cache."""

    total: int = 0
    cache: int = 0

    @property
    def usage(self) -> ChatUsage:
        return ChatUsage(prompt_tokens=self.total, prompt_tokens_details=PromptTokenDetails(cached_tokens=self.cache))


class ChatChunk(Lenient):
    """The last chunk has `usage` and no choices."""

    model: str | None = None
    choices: tuple[ChunkChoice, ...] | None = None
    usage: ChatUsage | None = None
    prompt_progress: PromptProgress | None = None
