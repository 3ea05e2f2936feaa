"""vLLM's OpenAI-compatible server, according to its sources (releases 0.6 to 0.11).

Differs from OpenAI's in its errors (`{"object": "error", …}` at the top before 0.10, `{"error": {…}}` since; numbers in
`code`), in the [DONE] that follows an error midway, in `usage: null` of each chunk, and in rerank, which reports only
the total.
"""

from dataclasses import dataclass

from tests.unit.queen_rbee.imitations.openai import MODEL, OpenAiImitation
from tests.unit.queen_rbee.imitations.server import Asked, Call, Json

CACHE_USAGE = 0.375
CONTEXT = "This model's maximum context length is 2048 tokens. However, you requested 4096 tokens."


@dataclass
class VllmImitation(OpenAiImitation):
    """`old`: before release 0.10."""

    engine = "vllm"
    old: bool = False

    async def answer(self, call: Call, mood: str) -> None:
        path, body = call.asked.path, call.asked.body
        if path == "/version":
            await call.document(200, {"version": "0.11.0"})
        elif path == "/health":
            await call.document(200, "")
        elif path == "/metrics":
            await call.document(200, self.metrics())
        elif path == "/v1/rerank" and mood == "well":
            results = [{"index": 0, "document": {"text": body["documents"][0]}, "relevance_score": 0.9}]
            await call.document(200, {"id": "r", "model": MODEL, "usage": {"total_tokens": 9}, "results": results})
        else:
            await super().answer(call, mood)

    def metrics(self) -> str:
        name = f"vllm:{'gpu' if self.old else 'kv'}_cache_usage_perc"
        labels = f'{{engine="0",model_name="{MODEL}"}}'
        kinds = f"# HELP {name} KV-cache usage. 1 means 100 percent usage.\n# TYPE {name} gauge\n"
        return f"{kinds}{name}{labels} {CACHE_USAGE}\nvllm:num_requests_running{labels} 1.0\n"

    def models(self) -> list[Json]:
        return [
            {"id": MODEL, "object": "model", "created": 1, "owned_by": "vllm", "root": MODEL, "max_model_len": 2048}
        ]

    def unknown_model(self, name: object) -> Json:
        return self.complaint(f"The model `{name}` does not exist.", "NotFoundError", 404)

    def chunk(self, asked: Asked, text: str, finish: str | None) -> Json:
        return {**super().chunk(asked, text, finish), "usage": None}

    def usage(self) -> Json:
        return {"prompt_tokens": 5, "total_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": None}

    def midway(self) -> list[Json | str]:
        return [self.complaint("EngineCore encountered an issue", "InternalServerError", 500), "[DONE]"]

    def error(self, mood: str) -> tuple[int, Json | str]:
        errors: dict[str, tuple[int, Json | str]] = {
            "refuse": (400, self.complaint(CONTEXT, "BadRequestError", 400)),
            "busy": (503, self.complaint("the server is overloaded", "ServiceUnavailableError", 503)),
            "break": (500, "Internal Server Error"),
        }
        return errors[mood]

    def complaint(self, message: str, kind: str, code: int) -> Json:
        said = {"message": message, "type": kind, "param": None, "code": code}
        return {"object": "error", **said} if self.old else {"error": said}
