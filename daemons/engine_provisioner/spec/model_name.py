"""The names under which clients ask for a model: its reference in the pools file, without what must not be shown, and
that of its file alone."""

import hashlib
from urllib.parse import urlsplit

LIMIT = 256


def model_name(ref: str) -> str:
    """`ref` without credentials, query and fragment, which may hold secrets; at most LIMIT characters."""
    shown = ref
    if ref.startswith(("https://", "http://")):
        parts = urlsplit(ref)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if len(shown) <= LIMIT:
        return shown
    mark = hashlib.sha256(shown.encode()).hexdigest()[:12]
    return f"{mark}-{shown[-(LIMIT - 13) :]}"


def short_name(name: str) -> str:
    """The name of the model's file without directory and ending; queen-rbee knows the model by it too."""
    return name.rpartition("/")[2].removesuffix(".gguf")
