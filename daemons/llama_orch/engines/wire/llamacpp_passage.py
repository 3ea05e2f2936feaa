"""Chats and text completions passed through to llama-server, which reports counts for each choice of an answer.

Measured with build 11669. `timings` come at the end of a choice: in the chunk with its finish_reason, or with
include_usage in the chunk without choices after that, together with its `usage`. In text completions both come in the
chunk with the finish_reason. `cache_n` and `prompt_n` count the prompt's tokens, `predicted_n` the choice's. A prompt
is processed once for all its choices, but counted in each of them.
"""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from llama_orch.engines.wire.adapter import AnswerPart, Finished, StreamChunk
from llama_orch.engines.wire.client_view import wants_no_alternatives
from llama_orch.engines.wire.openai_calls import (
    STREAM_OPTIONS,
    OpenAiPassage,
    choices_asked,
    choices_per_prompt,
    encoded,
)
from llama_orch.engines.wire.openai_stream import counts_of
from llama_orch.engines.wire.parsing import count, json_object, table
from llama_orch.engines.wire.passage import Passage

PROGRESS = '"prompt_progress"'


class LlamaCppPassage(OpenAiPassage):
    """Passes a request through and adds up the counts of its choices.

    `usage` is requested only if the client wants it, since the chunks differ; without it `timings` give the counts.
    With several choices the client gets one `usage` for all of them, as with OpenAI.
    """

    def __init__(self, passage: Passage, defaults: Mapping[str, JsonValue]) -> None:
        self._usage = _wants_usage(passage.body)
        stream: dict[str, JsonValue] = {**STREAM_OPTIONS} if self._usage else {"stream": True}
        if passage.counts_first:
            stream["return_progress"] = True
        if passage.endpoint == "chat" and wants_no_alternatives(passage.body):
            stream["top_logprobs"] = 1  # the default is 20, and 0 turns all log probabilities off
        super().__init__(passage, None, defaults, stream_options=stream)
        self._choices, self._each = choices_asked(passage.body), choices_per_prompt(passage.body)
        self._counted: list[Finished] = []
        self._last: Mapping[str, object] = {}

    def event(self, data: str) -> Sequence[AnswerPart]:
        """Parse one chunk; before the end, add the counts of all choices.

        Only the last progress report is passed on: the first chunk passed on counts as the beginning of the answer.
        """
        if PROGRESS in data and not _prompt_processed(data):
            return []
        parts = super().event(data)
        return [*self._total_usage(), *parts] if data == "[DONE]" else parts

    def _count(self, chunk: Mapping[str, object], finished: int) -> None:
        usage, timings = chunk.get("usage"), chunk.get("timings")
        if usage:
            self._counted.append(counts_of(usage))
        elif timings and finished and not self._usage:
            self._counted.append(_counts_of_timings(timings))
        else:
            return
        each = (
            self._each if len(self._counted) == self._choices else 1
        )  # fewer usages than choices: each covers several choices
        self._counts, self._last = _sum(self._counted, each), chunk

    def _usage_only(self, data: str) -> Sequence[AnswerPart]:
        return [] if self._choices > 1 else super()._usage_only(data)

    def _total_usage(self) -> Sequence[AnswerPart]:
        if self._choices < 2 or not (self._usage and self._last):
            return []
        whole = {**self._last, "choices": [], "usage": _usage_of(self._counts)}
        return [StreamChunk(self._view(encoded(whole).decode()), usage=True)]


def _prompt_processed(data: str) -> bool:
    """Whether a progress report says that the whole prompt has been processed."""
    progress = table(json_object(data).get("prompt_progress"))
    return not progress or progress.get("processed") == progress.get("total")


def _wants_usage(body: Mapping[str, JsonValue]) -> bool:
    """Whether the client gets the counts: always in an answer that is not streamed."""
    return body.get("stream") is not True or table(body.get("stream_options")).get("include_usage") is True


def _counts_of_timings(timings: object) -> Finished:
    fields = table(timings)
    processed, cached = count(fields.get("prompt_n")), count(fields.get("cache_n"))
    tokens_in = None if processed is None else processed + (cached or 0)
    return Finished(tokens_in, count(fields.get("predicted_n")), cached)


def _sum(counted: Sequence[Finished], each: int) -> Finished:
    """Add up the counts of all choices, `each` of which share a prompt."""
    tokens_in = _sum_known([one.tokens_in for one in counted])
    cached = _sum_known([one.cached for one in counted])
    return Finished(
        None if tokens_in is None else tokens_in // each,
        _sum_known([one.tokens_out for one in counted]),
        None if cached is None else cached // each,
    )


def _sum_known(counts: Sequence[int | None]) -> int | None:
    known = [one for one in counts if one is not None]
    return sum(known) if known else None


def _usage_of(counts: Finished) -> Mapping[str, object]:
    tokens_in, tokens_out = counts.tokens_in or 0, counts.tokens_out or 0
    usage = {"completion_tokens": tokens_out, "prompt_tokens": tokens_in, "total_tokens": tokens_in + tokens_out}
    return usage | {"prompt_tokens_details": {"cached_tokens": counts.cached or 0}}
