"""The reading of OpenAI's streams, which most engines speak: chunks, their choices and counts, and the end.

Measured with llama-server (build 11669), and as vLLM and TGI have it in their sources: `data: {…}` chunks, of which one
without choices, or the last one with them, has the `usage` that `stream_options.include_usage` asks for, then
`data: [DONE]`. An error midway is an event with `error`, or with `"object": "error"` in older vLLM.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from llama_orch.engines.wire.adapter import Finished, Refused, Said
from llama_orch.engines.wire.parsing import count, json_object, refused, table

EMPTY = Refused("the engine ended its answer without having begun it; its own log may say why", client_fault=False)
"""TGI drops an error in a chat stream and sends [DONE] alone."""

Choices = Sequence[Mapping[str, object]]


class OpenAiStream(ABC):
    """The reading of one stream; what the choices of a chunk mean for the task is told by the two kinds of it."""

    streamed = True

    def __init__(self, choices: int) -> None:
        """`choices`: how many answers were asked for."""
        self._counts = Finished(None, None)
        self._unfinished = choices
        self._begun = False

    def event(self, data: str) -> Sequence[Said]:
        """One chunk, or the end. Raises ValueError where `choices` is no list of objects."""
        if data == "[DONE]":
            return [self._counts if self._begun else EMPTY]
        if data == "null":  # llama-server's first words where it was given several prompts
            return []
        chunk = json_object(data)
        if chunk.get("error") is not None or chunk.get("object") == "error":
            return [refused(chunk)]
        choices = _choices_of(chunk)
        finished = sum(1 for choice in choices if choice.get("finish_reason"))
        self._count(chunk, finished)
        if not choices:
            return self._aside(data) if chunk.get("usage") else []
        self._begun = True
        self._unfinished -= finished
        return self._said(choices, data)

    def whole(self, body: bytes) -> Sequence[Said]:
        """Never asked for."""
        raise ValueError(f"a document of {len(body)} bytes came in place of a stream")

    def closed(self) -> Sequence[Said]:
        """Some servers leave [DONE] out: what has its finish_reason is complete."""
        return [self._counts] if self._unfinished <= 0 else []

    def _count(self, chunk: Mapping[str, object], _finished: int) -> None:
        """Take note of the counts in a chunk that ends so many choices; the last ones are those of the answer."""
        if usage := chunk.get("usage"):
            self._counts = counts_of(usage)

    @abstractmethod
    def _said(self, choices: Choices, data: str) -> Sequence[Said]:
        """What a chunk with choices means."""

    def _aside(self, _data: str) -> Sequence[Said]:
        """A chunk with nothing but counts."""
        return []


def one_line(data: str) -> str:
    """JSON in one line, as events need it: a line break can only be between its tokens."""
    return data if "\n" not in data and "\r" not in data else data.replace("\r", " ").replace("\n", " ")


def counts_of(usage: object) -> Finished:
    """OpenAI's `usage`; a reranker of vLLM tells the total only."""
    said = table(usage)
    tokens_in, tokens_out = count(said.get("prompt_tokens")), count(said.get("completion_tokens"))
    cached = count(table(said.get("prompt_tokens_details")).get("cached_tokens"))
    return Finished(count(said.get("total_tokens")) if tokens_in is None else tokens_in, tokens_out, cached)


def _choices_of(chunk: Mapping[str, object]) -> Choices:
    """The choices of a chunk. Raises ValueError where they are something else."""
    found = chunk.get("choices")
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(choice, dict) for choice in found):
        raise ValueError("`choices` is no list of objects")
    return found
