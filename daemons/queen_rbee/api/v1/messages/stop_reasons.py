"""Translation of OpenAI's `finish_reason` into Anthropic's `stop_reason`. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from queen_rbee.api.v1.chat.chunks import ChunkChoice
from queen_rbee.api.v1.messages.request import MessagesRequest

STOP_SEQUENCE_FINISH = "stop_sequence"
"""TGI's `finish_reason` for a matched stop sequence. llama-server says `stop`, as for any complete answer."""


@dataclass(frozen=True)
class AnswerOptions:
    """The parts of a request that its answer depends on. Without `thoughts` reasoning is not shown."""

    model: str
    max_tokens: int
    stop_sequences: Sequence[str] = ()
    thoughts: bool = True


def answer_options(request: MessagesRequest) -> AnswerOptions:
    """Return the options. Thoughts are dropped here because some models think even if told not to."""
    thinking = request.thinking
    hidden = thinking is not None and (thinking.type == "disabled" or thinking.display == "omitted")
    return AnswerOptions(request.model, request.max_tokens, request.stop_sequences or (), thoughts=not hidden)


@dataclass(frozen=True)
class Ending:
    """What the chunks so far say about the end of the answer."""

    finish_reason: str | None = None
    matched_stop: str | None = None
    refused: bool = False

    def after(self, choice: ChunkChoice) -> "Ending":
        """Return the ending updated by `choice`."""
        matched = choice.stop_reason if isinstance(choice.stop_reason, str) else self.matched_stop
        refused = self.refused or bool(choice.delta and choice.delta.refusal)
        return replace(
            self, finish_reason=choice.finish_reason or self.finish_reason, matched_stop=matched, refused=refused
        )


def stop_reason(ending: Ending, options: AnswerOptions, tokens: int, *, tools_called: bool) -> tuple[str, str | None]:
    """Return `stop_reason` and `stop_sequence` of an answer of `tokens` tokens."""
    if ending.refused or ending.finish_reason == "content_filter":
        return "refusal", None
    if ending.finish_reason == "length":
        return ("max_tokens" if tokens >= options.max_tokens else "model_context_window_exceeded"), None
    if tools_called:
        return "tool_use", None
    if ending.matched_stop in options.stop_sequences:
        return "stop_sequence", ending.matched_stop
    if ending.finish_reason == STOP_SEQUENCE_FINISH:
        return "stop_sequence", options.stop_sequences[0] if len(options.stop_sequences) == 1 else None
    return "end_turn", None
