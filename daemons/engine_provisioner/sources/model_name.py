"""The names by which clients ask for a model: its reference without secrets, and its file name."""

import hashlib

from llama_orch.urls import without_secrets

LIMIT = 256


def model_name(ref: str) -> str:
    """Return `ref` without credentials, query and fragment, which may be secret, in at most LIMIT characters."""
    visible = without_secrets(ref)
    if len(visible) <= LIMIT:
        return visible
    digest = hashlib.sha256(visible.encode()).hexdigest()[:12]
    return f"{digest}-{visible[-(LIMIT - 13) :]}"


def short_name(name: str) -> str:
    """Return the file name without directory and `.gguf`; queen-rbee accepts this name too."""
    return name.rpartition("/")[2].removesuffix(".gguf")
