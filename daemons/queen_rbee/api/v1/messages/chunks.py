"""The chunks of an OpenAI chat, as far as a message is made of them; engines add to them and leave out at will.

As measured with llama-server (thoughts are `reasoning_content`) and as vLLM has them (`reasoning`).
"""

import json

from pydantic import JsonValue

from queen_rbee.api.v1.messages.blocks import Lenient


class Function(Lenient):
    """A piece of a call: first the name, then the arguments' JSON in pieces; some engines send a whole object."""

    name: str | None = None
    arguments: JsonValue = None


class CallPiece(Lenient):
    """A piece of the tool call number `index`."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None

    @property
    def name(self) -> str:
        """The tool's name, or what is known of it by now."""
        return (self.function and self.function.name) or ""

    @property
    def arguments(self) -> str:
        """A piece of the arguments' JSON."""
        given = self.function.arguments if self.function else None
        if given is None or isinstance(given, str):
            return given or ""
        return json.dumps(given, ensure_ascii=False)


class Delta(Lenient):
    """What is new of the answer."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[CallPiece, ...] | None = None

    @property
    def thoughts(self) -> str | None:
        """What was thought; some engines send it under both names."""
        return self.reasoning_content or self.reasoning


class Choice(Lenient):
    """The one answer that was asked for. `stop_reason` is vLLM's: the stop sequence that was met, or a token."""

    delta: Delta | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class Details(Lenient):
    """Of the prompt's tokens."""

    cached_tokens: int | None = None


class Usage(Lenient):
    """Tokens of the prompt, cached ones among them, and of the answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Details | None = None

    @property
    def cached(self) -> int | None:
        """How many of the prompt were found in the engine's cache, if it tells."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None


class Progress(Lenient):
    """llama-server's report of how much of the prompt it has read: tokens in all, and those that were in its cache."""

    total: int = 0
    cache: int = 0

    @property
    def usage(self) -> Usage:
        """The counts of the prompt."""
        return Usage(prompt_tokens=self.total, prompt_tokens_details=Details(cached_tokens=self.cache))


class Chunk(Lenient):
    """One chunk; the last one has no choices but `usage`."""

    choices: tuple[Choice, ...] | None = None
    usage: Usage | None = None
    prompt_progress: Progress | None = None
