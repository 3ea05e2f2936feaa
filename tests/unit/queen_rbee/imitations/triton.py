"""Triton's generate extension with each of the text back ends, according to their sources.

A request's keys that are inputs of the model become inputs; others become parameters, which must not be lists. vLLM's
back end rejects unknown parameters, unless there is `sampling_parameters`, and then ignores them.
"""

import json
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from tests.unit.queen_rbee.imitations.server import Asked, Call, Imitation, Json

Backend = Literal["vllm", "tensorrtllm", "llmapi"]
INPUTS: dict[Backend, set[str]] = {
    "vllm": {
        "text_input",
        "stream",
        "sampling_parameters",
        "exclude_input_in_output",
        "return_finish_reason",
        "return_num_input_tokens",
        "return_num_output_tokens",
    },
    "tensorrtllm": {
        "text_input",
        "max_tokens",
        "stop_words",
        "exclude_input_in_output",
        "top_k",
        "top_p",
        "temperature",
        "repetition_penalty",
        "seed",
        "stream",
        "return_num_input_tokens",
    },
    "llmapi": {
        "text_input",
        "streaming",
        "sampling_param_max_tokens",
        "sampling_param_temperature",
        "sampling_param_top_k",
        "sampling_param_top_p",
        "sampling_param_seed",
        "sampling_param_stop",
        "return_finish_reason",
        "return_stop_reason",
        "stop",
    },
}
MODEL = "ensemble"
OTHERS = ("preprocessing", "tensorrt_llm")
"""Models of TensorRT-LLM's repository that take no text."""


@dataclass
class TritonImitation(Imitation):
    """One model, run by `backend`. `so_far` is the text that the LLM API has sent."""

    engine = "triton"
    backend: Backend = "vllm"
    so_far: str = ""

    async def answer(self, call: Call, mood: str) -> None:
        path = unquote(call.asked.path)
        if path == f"/v2/models/{MODEL}/generate_stream":
            self.so_far = ""
            wrong = self.wrong(call.asked.body)
            await (call.document(400, {"error": wrong}) if wrong else super().answer(call, mood))
        elif path == "/v2":
            await call.document(200, {"name": "triton", "version": "2.59.0", "extensions": ["generate"]})
        elif path == "/v2/health/ready":
            await call.document(200, "")
        elif path == "/v2/repository/index":
            names = (*OTHERS, MODEL)
            await call.document(200, [{"name": name, "version": "1", "state": "READY"} for name in names])
        elif path in (f"/v2/models/{name}" for name in (*OTHERS, MODEL)):
            await call.document(200, metadata(path.rpartition("/")[2]))
        else:
            await call.document(404, {"error": f"Request for unknown model: {path} is not found"})

    def wrong(self, body: Json) -> str | None:
        """Return why Triton or the back end rejects a request."""
        parameters = {name: value for name, value in body.items() if name not in INPUTS[self.backend]}
        if odd := [name for name, value in parameters.items() if isinstance(value, list | dict) or value is None]:
            return f"parameter '{odd[0]}' has invalid type. It should be either 'int', 'bool', 'string' or 'double'."
        if not body.get("streaming" if self.backend == "llmapi" else "stream"):
            return "the request must ask for a stream"
        if self.backend == "tensorrtllm" and "max_tokens" not in body:
            return "[request id: <id_unknown>] expected number of inputs between 2 and 30 but got 1 inputs"
        if self.backend == "vllm" and "max_tokens" not in json.loads(body["sampling_parameters"]):
            return "the request must set max_tokens"
        return None

    def token(self, asked: Asked, text: str) -> Json:
        self.so_far += text
        head = {"model_name": MODEL, "model_version": "1"}
        if self.backend == "llmapi":
            return {**head, "stop_reason": "None", "text_output": self.so_far}
        if self.backend == "tensorrtllm":
            return {**head, "sequence_end": False, "sequence_id": 0, "sequence_start": False, "text_output": text}
        return {**head, "num_input_tokens": 5, "text_output": text}

    def last(self, asked: Asked) -> list[Json | str]:
        return [self.token(asked, "")]

    def midway(self) -> list[Json | str]:
        return [{"error": "Error generating stream: out of memory"}]

    def error(self, mood: str) -> tuple[int, Json | str]:
        return {
            "refuse": (400, {"error": "Prompt length (4000) exceeds maximum input length (2048)."}),
            "busy": (503, {"error": "Exceeds maximum queue size"}),
            "break": (500, {"error": "Error generating stream: the engine is dead"}),
        }[mood]


def metadata(name: str) -> Json:
    inputs, outputs = ("text_input", "text_output") if name == MODEL else ("QUERY", "INPUT_ID")
    return {"name": name, "inputs": [{"name": inputs}], "outputs": [{"name": outputs}]}
