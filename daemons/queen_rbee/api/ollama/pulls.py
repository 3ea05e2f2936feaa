"""What is told of a pull, and which model a name means: a reference, or a model on the disk. Pure."""

from collections.abc import Sequence
from hashlib import sha256

from pydantic import JsonValue

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.models import DiskModel
from llama_orch.contracts.node_operations import NodeOperation, NodeOperationState
from llama_orch.engines.wire.model_names import model_key
from llama_orch.http.server.bodies import invalid
from queen_rbee.api.ollama.names import LATEST, not_found

HUBS = ("hf.co/", "huggingface.co/")
SUCCESS: dict[str, JsonValue] = {"status": "success"}


def progress_line(operation: NodeOperation) -> dict[str, JsonValue]:
    """Return the line that shows the state of a pull. `digest` identifies the pull: clients cut it to twelve digits."""
    if operation.state is NodeOperationState.DONE:
        return SUCCESS
    if operation.state is NodeOperationState.FAILED:
        return {"error": ". ".join(filter(None, (operation.error or "the pull failed", operation.hint)))}
    if operation.state is NodeOperationState.CANCELLED:
        return {"error": "the pull was cancelled"}
    progress = operation.progress
    line: dict[str, JsonValue] = {"status": f"pulling {operation.subject}"}
    if progress.bytes_total:
        line["digest"] = f"sha256:{sha256(operation.subject.encode()).hexdigest()}"
        line |= {"total": progress.bytes_total, "completed": min(progress.bytes_done, progress.bytes_total)}
    return line


def reference(name: str) -> str:
    """Return the reference of a model as pools.toml has it, also for Ollama's `hf.co/ORG/REPO:QUANT`.

    Raises ApiError 400 for a name of Ollama's own library.
    """
    name = name.removesuffix(LATEST)
    for hub in HUBS:
        if name.startswith(hub):
            return f"hf:{name.removeprefix(hub)}"
    scheme, separator, _rest = name.partition(":")
    if separator and scheme in ("hf", "file", "https", "s3", "oci"):
        return name
    advice = "is not in a source that is known here. Name a reference as in pools.toml, such as hf:ORG/REPO:Q4_K_M"
    raise ApiError(400, invalid([("model", advice)]))


def find_on_disk(name: str, models: Sequence[DiskModel]) -> DiskModel:
    """Return the model with this reference, else the only one with this file name. Raises ApiError 404, 409."""
    names = [name, name.removesuffix(LATEST)]
    exact = [each for each in models if each.ref in names]
    found = exact or [each for each in models if model_key(each.ref) in map(model_key, names)]
    if not found:
        raise not_found(name)
    if len(found) > 1:
        refs = ", ".join(each.ref for each in found)
        raise ApiError(409, invalid([("model", f"several models on the disk have this name: {refs}")]))
    return found[0]
