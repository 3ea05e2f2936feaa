"""Manifests of models in registries: ModelPack, Docker Model Runner and Ollama. Pure.

ModelPack: https://github.com/modelpack/model-spec. Docker: github.com/docker/model-runner, pkg/distribution/types.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch.remote_file import Role
from engine_provisioner.sources.https import safe_name
from engine_provisioner.sources.shards import SHARD, shard_name

MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
GGUF = "application/vnd.docker.ai.gguf.v3"
PROJECTORS = (
    "application/vnd.docker.ai.mmproj",
    "application/vnd.docker.ai.gguf.v3.mmproj",
    "application/vnd.ollama.image.projector",
)
TEMPLATE = "application/vnd.docker.ai.chat.template.jinja"
WEIGHTS = ("application/vnd.cncf.model.weight.v1.gguf", "application/vnd.cncf.model.weight.v1.raw")
OLLAMA = "application/vnd.ollama.image.model"
PACKED = re.compile(r"\.(tar|dir\.tar|safetensors)([+.].*)?$|\+(gzip|zstd)$")
FILE_PATH = "org.cncf.model.filepath"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LAYERS = 1000


@dataclass(frozen=True)
class Layer:
    """A layer of a manifest. `file_path` is its name in ModelPack; `size` is in bytes."""

    media_type: str
    digest: str
    size: int
    file_path: str

    @property
    def sha256(self) -> str:
        """The digest as 64 hex digits."""
        return self.digest.removeprefix("sha256:")


@dataclass(frozen=True)
class Chosen:
    """A layer that is a file of the model."""

    layer: Layer
    role: Role
    name: str


class BadManifest(Exception):
    """The document is no manifest; the message follows its name."""


def digest_of(body: bytes) -> str:
    """Return the digest by which a manifest is addressed."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def first_manifest(body: bytes) -> str | None:
    """Return the digest of the first manifest in an index; None if `body` is a manifest itself. Raises BadManifest."""
    document = _object(body)
    entries = document.get("manifests")
    if not isinstance(entries, list):
        return None
    for entry in entries[:LAYERS]:
        digest = entry.get("digest") if isinstance(entry, dict) else None
        if isinstance(digest, str) and DIGEST.fullmatch(digest) and entry.get("mediaType") in MANIFESTS:
            return digest
    raise BadManifest("is an index without a manifest")


def layers(body: bytes) -> list[Layer]:
    """Return the layers of a manifest. Raises BadManifest."""
    found = _object(body).get("layers")
    if not isinstance(found, list):
        raise BadManifest("is not a manifest")
    return [layer for entry in found[:LAYERS] if (layer := _layer(entry))]


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadManifest("is not JSON") from error
    if not isinstance(document, dict):
        raise BadManifest("is not a manifest")
    return document


def _layer(entry: object) -> Layer | None:
    if not isinstance(entry, dict):
        return None
    kind, digest, size = entry.get("mediaType"), entry.get("digest"), entry.get("size")
    if not (isinstance(kind, str) and isinstance(digest, str) and isinstance(size, int) and DIGEST.fullmatch(digest)):
        return None
    annotations = entry.get("annotations")
    path = annotations.get(FILE_PATH) if isinstance(annotations, dict) else None
    return Layer(kind, digest, size, path if isinstance(path, str) and path.isprintable() else "")


def choose(found: Sequence[Layer], ref: str) -> list[Chosen]:
    """Return the files of the model, the one that the engine opens first. Raises ProvisioningFailure."""
    models = _models(found)
    if not models or any(PACKED.search(layer.media_type) for layer in models):
        kinds = ", ".join(sorted({layer.media_type for layer in found})[:10]) or "none"
        hint = f"llama.cpp serves GGUF files, not archives or safetensors. Layers: {kinds}."
        raise ProvisioningFailure(f"{ref} has no GGUF file", hint, Retry.AFTER_FIX)
    names = _names(models)
    chosen = [
        Chosen(layer, "model" if index == 0 else "shard", name)
        for index, (layer, name) in enumerate(zip(models, names, strict=True))
    ]
    projector = next((layer for layer in found if _is_projector(layer)), None)
    if projector:
        chosen.append(Chosen(projector, "mmproj", "mmproj.gguf"))
    if template := next((layer for layer in found if layer.media_type == TEMPLATE), None):
        chosen.append(Chosen(template, "template", "template.jinja"))
    return chosen


def _models(found: Sequence[Layer]) -> list[Layer]:
    docker = [layer for layer in found if layer.media_type == GGUF]
    if docker:
        return docker
    weights = [layer for layer in found if _is_weight(layer) and not _is_projector(layer)]
    named = [layer for layer in weights if layer.file_path.lower().endswith(".gguf")]
    if named:
        return _one_model(sorted(named, key=lambda layer: layer.file_path))
    return sorted(weights, key=lambda layer: -layer.size)[:1]


def _one_model(named: list[Layer]) -> list[Layer]:
    """Return the first model among files in order: one file, or all its shards."""
    first = SHARD.fullmatch(named[0].file_path)
    if first is None:
        return named[:1]
    same = (SHARD.fullmatch(layer.file_path) for layer in named)
    return [layer for layer, match in zip(named, same, strict=True) if match and match["stem"] == first["stem"]]


def _names(models: Sequence[Layer]) -> Iterator[str]:
    named = [safe_name(layer.file_path) if layer.file_path else "" for layer in models]
    if len(models) > 1 and not all(SHARD.fullmatch(name) for name in named):
        yield from (shard_name("model", index + 1, len(models)) for index in range(len(models)))
    else:
        yield from (name or "model.gguf" for name in named)


def _is_weight(layer: Layer) -> bool:
    kind = layer.media_type
    return kind == OLLAMA or kind in WEIGHTS or kind.startswith("application/vnd.cncf.model.weight.v1.")


def _is_projector(layer: Layer) -> bool:
    name = layer.file_path.rpartition("/")[2].lower()
    return layer.media_type in PROJECTORS or (_is_weight(layer) and "mmproj" in name and name.endswith(".gguf"))
