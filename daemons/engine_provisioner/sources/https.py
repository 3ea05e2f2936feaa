"""Models from a web server: `https://HOST/PATH.gguf`, and plain http from this machine.

Owns `models/<key>/` in the cache directory, where the key is the file's checksum, or a hash of the URL without one.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from engine_provisioner.fetch.remote_file import RemoteFile
from engine_provisioner.fetch.web import Web, is_cleartext
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.sources.shards import all_parts
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
    """Return the model if all its files were downloaded."""
    first = stored_at(request, context)
    paths = [first.with_name(name) for name in all_parts(first.name)]
    if not all(path.exists() for path in paths):
        return None
    others = (StoredPart(path, "shard") for path in paths[1:])
    return Stored(None, (StoredPart(first, sha256=request.sha256), *others))


async def resolve(request: ModelRequest, context: SourceContext, _web: Web) -> Resolved:
    """Return the file at the URL and its other parts; the server is not asked."""
    return Resolved(request.ref, None, tuple(by_name(request, context, request.ref)))


def by_name(request: ModelRequest, context: SourceContext, url: str) -> Iterator[RemoteFile]:
    """Yield the files of the model whose first file is at `url`, by their names."""
    first = stored_at(request, context)
    parts, keep = urlsplit(url), models_directory(request, context)
    for name in all_parts(first.name):
        is_first = name == first.name
        directory = parts.path.rpartition("/")[0]
        yield RemoteFile(
            name=name,
            url=url if is_first else urlunsplit(parts._replace(path=f"{directory}/{quote(name)}")),
            target=first.with_name(name),
            shown=model_name(request.ref if is_first else f"{request.ref.partition('?')[0].rpartition('/')[0]}/{name}"),
            keep=keep,
            role="model" if is_first else "shard",
            sha256=request.sha256 if is_first else None,
        )


SOURCE = Source(("https://", "http://"), "https://", check, stored, resolve)
