"""The lines of Ollama's answers: each piece is one JSON object, and the last one has the figures. Pure."""

from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from queen_rbee.api.ollama.pieces import AnswerEnd, EngineTimings, Piece
from queen_rbee.tasks.measurements import Measurements

Json = dict[str, JsonValue]
Kind = Literal["chat", "generate"]

PROMPT_COUNT = "prompt_eval_count"


def timestamp(at: datetime) -> str:
    """Return a time in UTC as RFC 3339."""
    return at.isoformat().replace("+00:00", "Z")


def line(kind: Kind, model: str, at: datetime, piece: Piece, *, done: bool = False) -> Json:
    """Return the object of one piece."""
    body: Json = {"model": model, "created_at": timestamp(at), **_content(kind, piece), "done": done}
    return {**body, "logprobs": list(piece.logprobs)} if piece.logprobs else body


def last_line(kind: Kind, model: str, at: datetime, piece: Piece, ending: AnswerEnd, measured: Measurements) -> Json:
    """Return the object that ends an answer; `piece` is the rest of it, or all of it."""
    body = line(kind, model, at, piece, done=True)
    return {**body, "done_reason": ending.done_reason, **figures(measured, ending.timings)}


def load_line(kind: Kind, model: str, at: datetime, reason: Literal["load", "unload"]) -> Json:
    """Return the answer to a request without a prompt."""
    return {**line(kind, model, at, Piece(), done=True), "done_reason": reason}


def figures(measured: Measurements, timings: EngineTimings | None = None) -> Json:
    """Return token counts and durations in nanoseconds: the engine's own if it reports them, else the queen's.

    `load_duration` is the wait for a slot, which includes the load of the model.
    """
    own = timings or EngineTimings()
    return {
        "total_duration": _ns(measured.submitted_at, measured.ended_at),
        "load_duration": _ns(measured.submitted_at, measured.started_at),
        PROMPT_COUNT: measured.tokens_in,
        "prompt_eval_duration": _own(own.prompt_ms) or _ns(measured.sent_at, measured.first_token_at),
        "eval_count": measured.tokens_out,
        "eval_duration": _own(own.predicted_ms) or _ns(measured.first_token_at, measured.ended_at),
    }


def embedding_figures(measured: Measurements) -> Json:
    """Return those figures that an embedding has."""
    return {name: value for name, value in figures(measured).items() if "eval_" not in name or name == PROMPT_COUNT}


def _content(kind: Kind, piece: Piece) -> Json:
    thoughts: Json = {"thinking": piece.thoughts} if piece.thoughts else {}
    calls: Json = {"tool_calls": list(piece.calls)} if piece.calls else {}
    if kind == "generate":
        return {"response": piece.text, **thoughts, **calls}
    return {"message": {"role": "assistant", "content": piece.text, **thoughts, **calls}}


def _ns(start: float | None, stop: float | None) -> int:
    return 0 if start is None or stop is None else max(0, round((stop - start) * 1e9))


def _own(milliseconds: float | None) -> int:
    return max(0, round(milliseconds * 1e6)) if milliseconds and milliseconds < 1e12 else 0
