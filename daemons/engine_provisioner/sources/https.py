"""Models from a web server: `https://HOST/PATH.gguf`, and plain http from this machine.

Owns `models/<key>/NAME` in the cache directory, where the key is the file's checksum, or a hash of the URL without one.
"""

import hashlib
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from engine_provisioner.fetch.remote_file import RemoteFile
from engine_provisioner.fetch.web import Web, is_cleartext
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.sources.source import ModelRequest, Resolved, Source, SourceContext, Stored, StoredPart

NAME_LIMIT = 128


def check(ref: str) -> None:
    """Raise ValueError if `ref` is plain http to another machine."""
    if is_cleartext(ref):
        raise ValueError("plain http is allowed from this machine only; use https://")


def models_directory(request: ModelRequest, context: SourceContext) -> Path:
    """Return the directory for models that have no cache layout of their own."""
    return request.cache_dir or context.cache_dir / "models"


def stored_at(request: ModelRequest, context: SourceContext) -> Path:
    """Return the path of a downloaded model: by its checksum, or by a hash of its reference if it has none."""
    key = request.sha256 or hashlib.sha256(request.ref.encode()).hexdigest()
    return models_directory(request, context) / key / safe_name(urlsplit(request.ref).path)


def safe_name(path: str) -> str:
    """Return a file name made of the last part of a percent-encoded path; it is not hidden and has no slash."""
    return PurePosixPath(unquote(path)).name.lstrip(".")[-NAME_LIMIT:] or "model.gguf"


def stored(request: ModelRequest, context: SourceContext) -> Stored | None:
    """Return the model if it was downloaded."""
    path = stored_at(request, context)
    return Stored(None, (StoredPart(path, sha256=request.sha256),)) if path.exists() else None


async def resolve(request: ModelRequest, context: SourceContext, _web: Web) -> Resolved:
    """Return the file at the URL; the server is not asked."""
    shown, target = model_name(request.ref), stored_at(request, context)
    keep = models_directory(request, context)
    return Resolved(
        request.ref, None, (RemoteFile(target.name, request.ref, target, shown, keep, sha256=request.sha256),)
    )


SOURCE = Source(("https://", "http://"), "https://", check, stored, resolve)
