"""NVIDIA's Triton Inference Server with an LLM back end. It may load and unload models while it runs."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, TypeAdapter

from llama_orch.engines.engine_client import EngineClient, parse
from llama_orch.engines.kind import (
    Description,
    Kind,
    Launch,
    LaunchRequest,
    any_workload,
    no_conflicts,
)

if TYPE_CHECKING:
    from llama_orch.engines.wire.adapter import EngineAdapter

MODELS_LIMIT = 64
"""No more models than this are asked for their inputs and outputs."""


class _Model(BaseModel):
    name: str
    state: str = "UNAVAILABLE"


class _Tensor(BaseModel):
    name: str


class _Metadata(BaseModel):
    inputs: list[_Tensor]
    outputs: list[_Tensor]


INDEX = TypeAdapter(list[_Model])
METADATA = TypeAdapter(_Metadata)


async def describe(client: EngineClient) -> Description | None:
    """List the ready models that make text from text; others are parts of these, or of no use here.

    The repository index answers POST only.
    """
    answer = await client.post("/v2/repository/index")
    index = parse(INDEX, answer[1]) if answer and answer[0] == 200 else None
    ready = list(dict.fromkeys(model.name for model in index or [] if model.state == "READY"))[:MODELS_LIMIT]
    models = tuple([name for name in ready if makes_text(await client.get(f"/v2/models/{name}"))])
    return Description(models) if models else None


def makes_text(metadata: bytes) -> bool:
    """Whether the model with this `metadata` has a text input and a text output."""
    found = parse(METADATA, metadata)
    if found is None:
        return False
    inputs, outputs = ({tensor.name for tensor in tensors} for tensors in (found.inputs, found.outputs))
    return "text_input" in inputs and "text_output" in outputs


def arguments(request: LaunchRequest) -> list[str]:
    """Return the arguments of tritonserver in the images nvcr.io/nvidia/tritonserver. The model is a repository.

    Context and slots are in the configuration of its models.
    """
    argv = ["--model-repository", request.model_path, "--http-address", request.host, "--http-port", str(request.port)]
    return [*argv, "--allow-grpc", "false", "--allow-metrics", "false"]


def _adapter() -> "EngineAdapter":
    from llama_orch.engines.wire.triton import Triton

    return Triton()


KIND = Kind(
    "triton",
    relay_paths={"/v2/models/{model}/generate_stream": "completion"},
    describe=describe,
    adapter=_adapter,
    health_path="/v2/health/ready",
    loading_statuses=frozenset({400, 503}),
    models_are_fixed=False,
    version_path="/v2",
    launch=Launch(
        arguments,
        any_workload,
        no_conflicts,
        only_in_container=True,
        container_entry=("tritonserver",),
    ),
)
