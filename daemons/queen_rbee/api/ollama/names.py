"""Find the model that a client of Ollama's API means: names may end in `:latest`, and errors have Ollama's words."""

from collections.abc import Sequence

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from queen_rbee.pools.candidates import Candidate
from queen_rbee.pools.model_lookup import ModelCatalog, ModelTarget, find_target
from queen_rbee.pools.registry import PoolRegistry

LATEST = ":latest"
NAME_LIMIT = 128


def find_model(name: str, catalog: ModelCatalog, registry: PoolRegistry) -> tuple[str, ModelTarget]:
    """Return the name without a needless `:latest`, and what it selects.

    Raises ApiError as `find_target`, with Ollama's words if nothing has this name.
    """
    try:
        return name, find_target(name, catalog, registry.replicas, registry.synced)
    except ApiError as error:
        if error.body.code is not ErrorCode.NOT_FOUND:
            raise
        if name.endswith(LATEST):
            return find_model(name.removesuffix(LATEST), catalog, registry)
        raise not_found(name, error.body.message.partition("Available: ")[2]) from error


def not_found(name: str, available: str = "") -> ApiError:
    """Return the error for an unknown model in the words that clients look for."""
    message = f'model "{name[:NAME_LIMIT]}" not found'
    fields = [FieldProblem(field="model", problem="does not exist")]
    hint = f"Available: {available}" if available else "GET /api/tags lists the models."
    return ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message=message, fields=fields, hint=hint))


def candidates_of(target: ModelTarget, registry: PoolRegistry) -> Sequence[Candidate]:
    """Return the replicas that have the model, or could load it."""
    replicas = registry.replicas
    if target.pool_id:
        return replicas.of_pool(target.pool_id)
    return replicas.serving(target.model_ref) if target.model_ref else replicas.all()
