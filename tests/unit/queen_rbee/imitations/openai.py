"""A server of OpenAI's API, such as LM Studio, SGLang and llama-swap.

/v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings. Errors are `{"error": {message, type, param, code}}`
with a text in `code`; the usage comes in a separate chunk before [DONE].
"""

from dataclasses import dataclass

from tests.unit.queen_rbee.imitations.server import Asked, Call, Imitation, Json

MODEL = "org/served"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def complaint(message: str, kind: str, code: str | int | None) -> Json:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


@dataclass
class OpenAiImitation(Imitation):
    """Follows the API's reference."""

    engine = "openai-http"

    async def answer(self, call: Call, mood: str) -> None:
        path, body = call.asked.path, call.asked.body
        if path == "/v1/models":
            await call.document(200, {"object": "list", "data": self.models()})
        elif body.get("model") != MODEL:
            await call.document(404, self.unknown_model(body.get("model")))
        elif mood != "well" or path in ("/v1/chat/completions", "/v1/completions"):
            await super().answer(call, mood)
        elif path == "/v1/embeddings":
            await call.document(200, embeddings(body["input"]))
        else:
            await call.document(404, {"detail": "Not Found"})

    def models(self) -> list[Json]:
        return [{"id": MODEL, "object": "model", "created": 1, "owned_by": "me"}]

    def unknown_model(self, name: object) -> Json:
        return complaint(f"The model {name!r} does not exist", "invalid_request_error", "model_not_found")

    def token(self, asked: Asked, text: str) -> Json:
        return self.chunk(asked, text, None)

    def last(self, asked: Asked) -> list[Json | str]:
        counted = {**self.chunk(asked, "", None), "choices": [], "usage": self.usage()}
        told = [counted] if asked.body.get("stream_options", {}).get("include_usage") else []
        return [self.chunk(asked, "", "stop"), *told, "[DONE]"]

    def usage(self) -> Json:
        return USAGE

    def midway(self) -> list[Json | str]:
        return [complaint("the server had an error", "server_error", None)]

    def error(self, mood: str) -> tuple[int, Json | str]:
        errors: dict[str, tuple[int, Json | str]] = {
            "refuse": (400, complaint("context length exceeded", "invalid_request_error", "context_length_exceeded")),
            "busy": (429, complaint("too many requests", "rate_limit_error", "rate_limit_exceeded")),
            "break": (502, "<html><h1>502 Bad Gateway</h1></html>"),
        }
        return errors[mood]

    def chunk(self, asked: Asked, text: str, finish: str | None) -> Json:
        chat = asked.path == "/v1/chat/completions"
        said: Json = {"delta": {"content": text} if text else {}} if chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        kind = "chat.completion.chunk" if chat else "text_completion"
        return {"id": "x-1", "object": kind, "created": 1, "model": MODEL, "choices": [choice]}


def embeddings(texts: list[str]) -> Json:
    data = [{"object": "embedding", "index": index, "embedding": [0.5, -0.5]} for index in range(len(texts))]
    return {"object": "list", "data": data, "model": MODEL, "usage": {"prompt_tokens": 4, "total_tokens": 4}}
