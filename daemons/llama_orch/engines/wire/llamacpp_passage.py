"""A chat or a text completion passed on to llama-server, which counts each choice of an answer for itself.

Measured with build 11669. What ends a choice has its `timings`: the chunk with its finish_reason, or with include_usage
the chunk without choices behind that, which has its `usage` too; of a text completion it is always the former, with
both. `cache_n` and `prompt_n` are the prompt's tokens, `predicted_n` the choice's. A prompt is read once for all its
choices, and counted with each of them.
"""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from llama_orch.engines.wire.adapter import Chunk, Finished, Said
from llama_orch.engines.wire.client_view import wants_no_alternatives
from llama_orch.engines.wire.openai_stream import counts_of
from llama_orch.engines.wire.openai_wire import TOLD_TO_STREAM, OpenAiPassage, asked_choices, asked_each, encoded
from llama_orch.engines.wire.parsing import count, json_object, table
from llama_orch.engines.wire.passage import Passage

PROGRESS = '"prompt_progress"'


class LlamaCppPassage(OpenAiPassage):
    """What a client wants streamed without usage is asked for so, since the chunks are others then: `timings` count
    as well. With several choices the client gets one usage for all of them, as OpenAI has it."""

    def __init__(self, passage: Passage, defaults: Mapping[str, JsonValue]) -> None:
        self._usage = _wants_usage(passage.body)
        told: dict[str, JsonValue] = {**TOLD_TO_STREAM} if self._usage else {"stream": True}
        if passage.counts_first:
            told["return_progress"] = True
        if passage.endpoint == "chat" and wants_no_alternatives(passage.body):
            told["top_logprobs"] = 1  # by itself the server tells 20 of them, and with 0 no log probability at all
        super().__init__(passage, None, defaults, told=told)
        self._choices, self._each = asked_choices(passage.body), asked_each(passage.body)
        self._counted: list[Finished] = []
        self._last: Mapping[str, object] = {}

    def event(self, data: str) -> Sequence[Said]:
        """One chunk; before the end the counts of all choices. Of progress only the last report is passed on: what is
        passed on counts as the beginning of the answer."""
        if PROGRESS in data and not _all_read(data):
            return []
        said = super().event(data)
        return [*self._all(), *said] if data == "[DONE]" else said

    def _count(self, chunk: Mapping[str, object], finished: int) -> None:
        usage, timings = chunk.get("usage"), chunk.get("timings")
        if usage:
            self._counted.append(counts_of(usage))
        elif timings and finished and not self._usage:
            self._counted.append(_timed(timings))
        else:
            return
        each = self._each if len(self._counted) == self._choices else 1  # fewer: they are of several choices already
        self._counts, self._last = _sum(self._counted, each), chunk

    def _aside(self, data: str) -> Sequence[Said]:
        return [] if self._choices > 1 else super()._aside(data)

    def _all(self) -> Sequence[Said]:
        if self._choices < 2 or not (self._usage and self._last):
            return []
        whole = {**self._last, "choices": [], "usage": _usage_of(self._counts)}
        return [Chunk(self._shown(encoded(whole).decode()), usage=True)]


def _all_read(data: str) -> bool:
    """Whether a chunk that reports progress says that the whole prompt has been read."""
    progress = table(json_object(data).get("prompt_progress"))
    return not progress or progress.get("processed") == progress.get("total")


def _wants_usage(body: Mapping[str, JsonValue]) -> bool:
    """Whether the client is to see the counts: in a document it is."""
    return body.get("stream") is not True or table(body.get("stream_options")).get("include_usage") is True


def _timed(timings: object) -> Finished:
    told = table(timings)
    read, cached = count(told.get("prompt_n")), count(told.get("cache_n"))
    return Finished(None if read is None else read + (cached or 0), count(told.get("predicted_n")), cached)


def _sum(counted: Sequence[Finished], each: int) -> Finished:
    """The counts of all choices, of which `each` share a prompt."""
    tokens_in = _known([one.tokens_in for one in counted])
    cached = _known([one.cached for one in counted])
    return Finished(
        None if tokens_in is None else tokens_in // each,
        _known([one.tokens_out for one in counted]),
        None if cached is None else cached // each,
    )


def _known(counts: Sequence[int | None]) -> int | None:
    known = [one for one in counts if one is not None]
    return sum(known) if known else None


def _usage_of(counts: Finished) -> Mapping[str, object]:
    tokens_in, tokens_out = counts.tokens_in or 0, counts.tokens_out or 0
    usage = {"completion_tokens": tokens_out, "prompt_tokens": tokens_in, "total_tokens": tokens_in + tokens_out}
    return usage | {"prompt_tokens_details": {"cached_tokens": counts.cached or 0}}
