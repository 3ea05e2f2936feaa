"""Translation of OpenAI chat chunks into the events of a response, as the chunks arrive."""

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from llama_orch.contracts.errors import ErrorBody
from queen_rbee.api.v1.chat.chunks import ChatChunk, ChatUsage, ChunkDelta
from queen_rbee.api.v1.chat.tool_calls import ToolCall, ToolCalls
from queen_rbee.api.v1.chat.turns import Json
from queen_rbee.api.v1.responses.output import Output, PartKind
from queen_rbee.api.v1.responses.resource import PREFIX, failed, finished
from queen_rbee.api.v1.responses.tools import Function

INCOMPLETE: Mapping[str, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a response is incomplete, by the chat's `finish_reason`."""


class ResponseTranslator:
    """Translates one answer: call `chunk` for each chunk, then `end` or `fail`.

    `begun` is the response as `resource.head` makes it; `response` is what has become of it, final after the end.
    `functions` are the tools that were offered.
    `valid` turns False with the first chunk that is not an OpenAI chat chunk; the answer must then fail. Events are
    numbered from 0, without gaps.
    """

    def __init__(self, begun: Json, functions: Iterable[Function] = ()) -> None:
        self.valid = True
        self.response = begun
        answer_id = str(begun["id"]).removeprefix(PREFIX)
        self._output = Output(answer_id, functions)
        self._calls = ToolCalls(f"call_{answer_id}")
        self._finish: str | None = None
        self._usage: ChatUsage | None = None
        self._events = 0

    def chunk(self, chunk: str | bytes) -> list[Json]:
        """Translate a chunk; of an invalid one make no events."""
        try:
            parsed = ChatChunk.model_validate_json(chunk)
        except ValidationError:
            self.valid = False
            return []
        self._usage = parsed.usage or self._usage
        events = self._begin()
        for choice in parsed.choices or ():
            self._finish = choice.finish_reason or self._finish
            events += self._delta(choice.delta) if choice.delta else []
        return self._numbered(events)

    def end(self, tokens_in: int, tokens_out: int, now: int) -> list[Json]:
        """Return the rest of the response. The counts apply if the engine has sent no `usage`.

        `now` is in seconds since the epoch.
        """
        incomplete = INCOMPLETE.get(self._finish or "")
        events = [*self._begin(), *self._close_calls()]
        events += self._output.close("incomplete" if incomplete else "completed")
        counts = self._usage or ChatUsage(prompt_tokens=tokens_in, completion_tokens=tokens_out)
        self.response = finished(self.response, self._output.items, counts, now, incomplete)
        return self._numbered([*events, {"type": f"response.{self.response['status']}", "response": self.response}])

    def fail(self, error: ErrorBody) -> list[Json]:
        """Return the end of a response that fails midway: an `error` event with our code, then the failed response."""
        events = [*self._begin(), *self._output.close("incomplete")]
        self.response = failed(self.response, self._output.items, error)
        param = error.fields[0].field if error.fields else None
        code = error.reason or error.code.value
        events.append({"type": "error", "code": code, "message": error.message, "param": param})
        return self._numbered([*events, {"type": "response.failed", "response": self.response}])

    def _begin(self) -> list[Json]:
        """Return the head of the response before the first event, nothing later."""
        if self._events:
            return []
        return [{"type": f"response.{name}", "response": self.response} for name in ("created", "in_progress")]

    def _numbered(self, events: Iterable[Json]) -> list[Json]:
        numbered = [
            {"type": event["type"], "sequence_number": number, **event}
            for number, event in enumerate(events, self._events)
        ]
        self._events += len(numbered)
        return numbered

    def _delta(self, delta: ChunkDelta) -> list[Json]:
        events = self._text("reasoning_text", delta.thoughts)
        events += self._text("output_text", delta.content)
        events += self._text("refusal", delta.refusal)
        for fragment in delta.tool_calls or ():
            self.valid = self._calls.add(fragment) and self.valid
            events += self._send(self._calls.take_complete())
            events += self._send([self._calls.current]) if self._calls.current else []
        return events

    def _text(self, kind: PartKind, text: str | None) -> list[Json]:
        return [*self._close_calls(), *self._output.write(kind, text)] if text else []

    def _close_calls(self) -> list[Json]:
        return self._send(self._calls.take_all())

    def _send(self, calls: Iterable[ToolCall]) -> list[Json]:
        return [event for call in calls for event in self._output.call(call)]
