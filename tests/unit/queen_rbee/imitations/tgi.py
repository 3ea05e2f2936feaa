"""Text Generation Inference, according to its router's sources (releases 2 and 3).

/generate_stream always answers 200: refusals are events too. /v1/chat/completions drops errors in its stream and sends
only [DONE]. `data:` is not followed by a space, and axum inserts keep-alive comments.
"""

import json
from dataclasses import dataclass

from tests.unit.queen_rbee.imitations.openai import OpenAiImitation
from tests.unit.queen_rbee.imitations.server import Asked, Call, Imitation, Json

FAILED = {"error": "Request failed during generation: CUDA out of memory", "error_type": "generation"}
TOO_LONG = "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"
ERRORS: dict[str, tuple[int, Json]] = {
    "refuse": (422, {"error": TOO_LONG, "error_type": "validation"}),
    "busy": (429, {"error": "Model is overloaded", "error_type": "overloaded"}),
    "break": (424, FAILED),
}


@dataclass
class TgiImitation(OpenAiImitation):
    """Both of its APIs."""

    engine = "tgi"

    async def answer(self, call: Call, mood: str) -> None:
        path, body = call.asked.path, call.asked.body
        if path == "/generate_stream":
            await self.generate(call, mood)
        elif path == "/info":
            await call.document(200, {"model_id": "org/tgi", "version": "3.3.4", "max_total_tokens": 2048})
        elif path == "/health":
            await call.document(200, "")
        elif body.get("model") != "tgi":
            await call.document(404, {"error": f"adapter {body.get('model')} not found", "error_type": "adapter"})
        elif not 0 < body.get("top_p", 0.5) < 1:
            await call.document(422, {"error": "`top_p` must be > 0.0 and < 1.0", "error_type": "validation"})
        elif mood == "midway":
            await call.begin()
            await call.event("[DONE]")
            await call.end()
        else:
            await Imitation.answer(self, call, mood)

    async def generate(self, call: Call, mood: str) -> None:
        """Answer its own API: a refusal is the only event."""
        wrong = _wrong(call.asked.body["parameters"])
        if mood in ERRORS or wrong:
            await call.begin()
            document = {"error": wrong, "error_type": "validation"} if wrong else ERRORS[mood][1]
            await call.send(b"data:%s\n\n" % json.dumps(document).encode())
            await call.end()
        else:
            await Imitation.answer(self, call, mood)

    def token(self, asked: Asked, text: str) -> Json:
        if asked.path != "/generate_stream":
            return super().token(asked, text)
        return {"index": 1, "token": _token(text), "generated_text": None, "details": None}

    def last(self, asked: Asked) -> list[Json | str]:
        if asked.path == "/generate_stream":
            details = {"finish_reason": "eos_token", "generated_tokens": 3, "input_length": 5, "seed": None}
            return [{"index": 3, "token": _token("</s>", True), "generated_text": "hello world", "details": details}]
        return [{**self.chunk(asked, "", "stop"), "usage": self.usage()}, "[DONE]"]

    def midway(self) -> list[Json | str]:
        return [FAILED]

    def error(self, mood: str) -> tuple[int, Json | str]:
        return ERRORS[mood]


def _token(text: str, special: bool = False) -> Json:
    return {"id": 7, "text": text, "logprob": -0.1, "special": special}


def _wrong(parameters: Json) -> str | None:
    """Return why TGI's validation rejects the parameters."""
    if parameters.get("temperature", 1.0) <= 0:
        return "`temperature` must be strictly positive"
    if not 0 < parameters.get("top_p", 0.5) < 1:
        return "`top_p` must be > 0.0 and < 1.0"
    if parameters.get("top_k", 1) <= 0:
        return "`top_k` must be strictly positive"
    return "`repetition_penalty` must be strictly positive" if parameters.get("repetition_penalty", 1.0) <= 0 else None
