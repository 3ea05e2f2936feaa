"""Why an answer has ended: from OpenAI's `finish_reason` to Anthropic's `stop_reason`. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from queen_rbee.api.v1.messages.chunks import Choice
from queen_rbee.api.v1.messages.request import MessagesRequest

FINISHED_BY_STOP = "stop_sequence"
"""TGI's `finish_reason` for a stop sequence that was met; llama-server says `stop`, as of any complete answer."""


@dataclass(frozen=True)
class Wanted:
    """What the request says that its answer depends on: the model's name, when to stop, whether thoughts are shown."""

    model: str
    max_tokens: int
    stop_sequences: Sequence[str] = ()
    thoughts: bool = True


def wanted_of(asked: MessagesRequest) -> Wanted:
    """What `asked` says of its answer. Some models think whether they are to or not."""
    wish = asked.thinking
    unseen = wish is not None and (wish.type == "disabled" or wish.display == "omitted")
    return Wanted(asked.model, asked.max_tokens, asked.stop_sequences or (), thoughts=not unseen)


@dataclass(frozen=True)
class Ending:
    """What the chunks have said of the answer's end."""

    finish: str | None = None
    met: str | None = None
    refused: bool = False

    def after(self, choice: Choice) -> "Ending":
        """With what `choice` adds."""
        met = choice.stop_reason if isinstance(choice.stop_reason, str) else self.met
        refused = self.refused or bool(choice.delta and choice.delta.refusal)
        return replace(self, finish=choice.finish_reason or self.finish, met=met, refused=refused)


def stop_of(ending: Ending, wanted: Wanted, tokens: int, *, called: bool) -> tuple[str, str | None]:
    """`stop_reason` and `stop_sequence` of an answer of `tokens` tokens that has `called` tools or not."""
    if ending.refused or ending.finish == "content_filter":
        return "refusal", None
    if ending.finish == "length":
        return ("max_tokens" if tokens >= wanted.max_tokens else "model_context_window_exceeded"), None
    if called:
        return "tool_use", None
    if ending.met in wanted.stop_sequences:
        return "stop_sequence", ending.met
    if ending.finish == FINISHED_BY_STOP:
        return "stop_sequence", wanted.stop_sequences[0] if len(wanted.stop_sequences) == 1 else None
    return "end_turn", None
