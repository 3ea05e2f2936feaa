"""Models in container registries: `oci://REGISTRY/NAME[:TAG|@DIGEST]`.

Owns `models/<key>/` in the cache directory, where the key is a hash of the reference: `manifest.json`, the manifest as
it was last fetched, and a directory with the files of each version. Layers are verified by their digests.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch.remote_file import RemoteFile
from engine_provisioner.fetch.web import Web
from engine_provisioner.sources.https import models_directory
from engine_provisioner.sources.oci_manifest import BadManifest, Chosen, choose, digest_of, first_manifest, layers
from engine_provisioner.sources.oci_registry import Registry
from engine_provisioner.sources.source import ModelRequest, Resolved, Source, SourceContext, Stored, StoredPart
from llama_orch.files import durable

PREFIX = "oci://"
COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
REFERENCE = re.compile(
    r"oci://(?P<host>(?:[A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:]{2,45}\])(?::[0-9]{1,5})?)"
    rf"/(?P<name>(?=.{{1,255}}?(?:[:@]|$)){COMPONENT}(?:/{COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))?"
)
AUTHORITY = "the manifest has"


def check(ref: str) -> None:
    """Raise ValueError if `ref` is malformed."""
    if not REFERENCE.fullmatch(ref):
        raise ValueError("must be oci://REGISTRY/NAME, with :TAG or @sha256:DIGEST if need be")


def stored(request: ModelRequest, context: SourceContext) -> Stored | None:
    """Return the model if its manifest and all its files are on disk."""
    base = _directory(request, context)
    try:
        body = (base / "manifest.json").read_bytes()
        parts = tuple(
            StoredPart(base / digest_of(body)[7:23] / chosen.name, chosen.role, *_required(request, chosen))
            for chosen in choose(layers(body), request.ref)
        )
    except (OSError, BadManifest, ProvisioningFailure):
        return None
    return Stored(digest_of(body), parts) if all(part.path.exists() for part in parts) else None


async def resolve(request: ModelRequest, context: SourceContext, web: Web) -> Resolved:
    """Ask the registry for the manifest. Raises ProvisioningFailure."""
    match = REFERENCE.fullmatch(request.ref)
    assert match is not None
    registry = Registry(match["host"], match["name"], request.ref, context, web)
    try:
        body = await _manifest(registry, match["digest"] or match["tag"] or "latest", request.ref)
        chosen = choose(layers(body), request.ref)
    except BadManifest as error:
        message = f"the manifest of {request.ref} {error}"
        raise ProvisioningFailure(message, "Correct the reference.", Retry.AFTER_FIX) from error
    base = _directory(request, context)
    files = tuple(_files(request, context, registry, chosen, base / digest_of(body)[7:23]))
    return Resolved(request.ref, digest_of(body), files, partial(durable.replace, base / "manifest.json", body))


async def _manifest(registry: Registry, reference: str, ref: str) -> bytes:
    """Return the manifest, the first one of an index. Raises ProvisioningFailure and BadManifest."""
    for _level in range(2):
        body = (await registry.manifest(reference)).body
        if reference.startswith("sha256:") and digest_of(body) != reference:
            message = f"the registry sent another manifest for {ref} than the one with the digest {reference}"
            raise ProvisioningFailure(message, "", Retry.REFETCH)
        inner = first_manifest(body)
        if inner is None:
            return body
        reference = inner
    raise BadManifest("is an index of indexes")


def _files(
    request: ModelRequest, context: SourceContext, registry: Registry, chosen: list[Chosen], directory: Path
) -> Iterator[RemoteFile]:
    for each in chosen:
        sha256, authority = _required(request, each)
        yield RemoteFile(
            name=each.name,
            url=registry.blob_url(each.layer.digest),
            target=directory / each.name,
            shown=f"{request.ref} ({each.name})",
            keep=models_directory(request, context),
            role=each.role,
            headers=registry.headers,
            size=each.layer.size,
            sha256=sha256,
            authority=authority,
            explain=registry.explain,
        )


def _required(request: ModelRequest, chosen: Chosen) -> tuple[str, str]:
    """Return the digest that a file must have, and whose it is."""
    if chosen.role == "model" and request.sha256:
        return request.sha256, "the pools file requires"
    return chosen.layer.sha256, AUTHORITY


def _directory(request: ModelRequest, context: SourceContext) -> Path:
    return models_directory(request, context) / hashlib.sha256(request.ref.encode()).hexdigest()


SOURCE = Source((PREFIX,), "oci://", check, stored, resolve)
