"""Parser of OpenAI's streams: chunks, their choices and counts, and the end.

Measured with llama-server (build 11669), and according to the sources of vLLM and TGI: `data: {…}` chunks, then
`data: [DONE]`. With `stream_options.include_usage`, a chunk without choices, or the last one with choices, has the
`usage`. An error midway is an event with `error`, or with `"object": "error"` in older vLLM.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from llama_orch.engines.wire.adapter import AnswerPart, EngineRefusal, Finished
from llama_orch.engines.wire.parsing import count, json_object, refusal_of_event, table

EMPTY = EngineRefusal("the engine sent an empty answer; its log may tell the reason", client_fault=False)
"""TGI drops an error in a chat stream and sends [DONE] alone."""

Choices = Sequence[Mapping[str, object]]


class OpenAiStream(ABC):
    """Parses one stream. Subclasses define what the choices of a chunk mean for the task."""

    streamed = True

    def __init__(self, choices: int) -> None:
        """`choices` is the number of answers that were asked for."""
        self._counts = Finished(None, None)
        self._unfinished = choices
        self._begun = False

    def event(self, data: str) -> Sequence[AnswerPart]:
        """Parse one chunk, or the end. Raises ValueError if `choices` is not a list of objects."""
        if data == "[DONE]":
            return [self._counts if self._begun else EMPTY]
        if data == "null":  # llama-server begins so if it was given several prompts
            return []
        chunk = json_object(data)
        if chunk.get("error") is not None or chunk.get("object") == "error":
            return [refusal_of_event(chunk)]
        choices = _choices_of(chunk)
        if len(choices) == 1 and not (choices[0].get("finish_reason") or "usage" in chunk):  # nearly always
            self._begun = True
            return self._parts(choices, data)
        finished = sum(1 for choice in choices if choice.get("finish_reason"))
        self._count(chunk, finished)
        if not choices:
            return self._usage_only(data) if chunk.get("usage") else []
        self._begun = True
        self._unfinished -= finished
        return self._parts(choices, data)

    def whole(self, body: bytes) -> Sequence[AnswerPart]:
        """Always raises ValueError: the request asks for a stream."""
        raise ValueError(f"the engine sent a document of {len(body)} bytes instead of a stream")

    def closed(self) -> Sequence[AnswerPart]:
        """Some servers omit [DONE]: an answer is complete if all choices had a finish_reason."""
        return [self._counts] if self._unfinished <= 0 else []

    def _count(self, chunk: Mapping[str, object], _finished: int) -> None:
        """Record the counts in a chunk that ends `_finished` choices; the last counts are those of the answer."""
        if usage := chunk.get("usage"):
            self._counts = counts_of(usage)

    @abstractmethod
    def _parts(self, choices: Choices, data: str) -> Sequence[AnswerPart]:
        """Convert a chunk with choices."""

    def _usage_only(self, _data: str) -> Sequence[AnswerPart]:
        """Convert a chunk that only has counts."""
        return []


def one_line(data: str) -> str:
    """Return JSON without line breaks, as events require. They can only occur between JSON tokens."""
    return data if "\n" not in data and "\r" not in data else data.replace("\r", " ").replace("\n", " ")


def counts_of(usage: object) -> Finished:
    """Parse OpenAI's `usage`. A reranker of vLLM reports only the total."""
    fields = table(usage)
    tokens_in, tokens_out = count(fields.get("prompt_tokens")), count(fields.get("completion_tokens"))
    cached = count(table(fields.get("prompt_tokens_details")).get("cached_tokens"))
    return Finished(count(fields.get("total_tokens")) if tokens_in is None else tokens_in, tokens_out, cached)


def _choices_of(chunk: Mapping[str, object]) -> Choices:
    """Return the choices of a chunk. Raises ValueError if they are not a list of objects."""
    found = chunk.get("choices")
    if found is None:
        return []
    if not isinstance(found, list):
        raise ValueError("`choices` is not a list of objects")
    for choice in found:
        if not isinstance(choice, dict):
            raise ValueError("`choices` is not a list of objects")
    return found
