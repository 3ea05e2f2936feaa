"""What a key may be used for, by method and path. Pure."""

from collections.abc import Mapping

from llama_orch.contracts.keys import USAGE_PATH, KeyEndpoint

EXACT: Mapping[tuple[str, str], KeyEndpoint] = {
    ("POST", "/v1/chat/completions"): "chat",
    ("POST", "/v1/completions"): "completions",
    ("POST", "/v1/embeddings"): "embeddings",
    ("POST", "/v1/rerank"): "rerank",
    ("POST", "/v2/rerank"): "rerank",
    ("POST", "/rerank"): "rerank",
    ("POST", "/v1/messages"): "messages",
    ("POST", "/v1/messages/count_tokens"): "messages",
    ("POST", "/api/chat"): "ollama",
    ("POST", "/api/generate"): "ollama",
    ("POST", "/api/embed"): "ollama",
    ("POST", "/api/embeddings"): "ollama",
}
BELOW: Mapping[str, KeyEndpoint] = {"/v1/responses": "responses", "/v2/tasks": "tasks"}
"""Paths that are meant with all that is below them: what is there knows its owner (`keyring.may_see`)."""
FOR_ALL = ("/v1/models", USAGE_PATH, "/api/tags", "/api/version", "/api/ps")


def endpoint_of(method: str, path: str) -> KeyEndpoint | None:
    """Return what `method` and `path` belong to; None if that is for the fleet token only."""
    if found := EXACT.get((method, path)):
        return found
    return next((name for prefix, name in BELOW.items() if path == prefix or path.startswith(f"{prefix}/")), None)


def open_to_every_key(method: str, path: str) -> bool:
    """Return whether every key may send this: it shows names of models, and the use of the key itself."""
    if method not in ("GET", "HEAD"):
        return (method, path) == ("POST", "/api/show")
    return path in FOR_ALL or path.startswith("/v1/models/")
