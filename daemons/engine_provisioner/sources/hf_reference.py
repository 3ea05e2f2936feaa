"""References to models on the Hugging Face hub, and the choice among the files of a repository. Pure.

The choice follows llama.cpp's common/download.cpp (find_best_model, find_best_sibling), except that without any
quantization to prefer it takes a file only if there is no other.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch.remote_file import Role
from engine_provisioner.sources.shards import SHARD, all_parts

PREFIX = "hf:"
DEFAULT_QUANTS = ("Q4_K_M", "Q4_0", "Q8_0")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REFERENCE = re.compile(
    rf"hf:(?P<repo>{NAME}/{NAME})(?::(?P<quant>[A-Za-z0-9_.-]{{1,64}})|/(?P<path>[^@\\]{{1,512}}\.gguf))?"
    r"(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{0,127}))?"
)
TAG = re.compile(r"[-.]([A-Za-z0-9_]+)$")
NO_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
LISTED = 20


@dataclass(frozen=True)
class HubReference:
    """`hf:ORG/REPO[:QUANT|/PATH.gguf][@REVISION]`."""

    repo: str
    quant: str | None
    path: str | None
    revision: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. `blob` is its name in the cache; `sha256` is known of large files only."""

    path: str
    size: int
    blob: str
    sha256: str | None


def parse(ref: str) -> HubReference:
    """Parse a reference. Raises ValueError."""
    match = REFERENCE.fullmatch(ref)
    if match is None:
        raise ValueError(
            "must be hf:ORG/REPO, hf:ORG/REPO:QUANT or hf:ORG/REPO/PATH.gguf, each with @REVISION if need be"
        )
    path, revision = match["path"], match["revision"] or "main"
    if not is_safe_path(path or "x") or not is_safe_path(revision):
        raise ValueError("must not contain empty parts, . or .. in its path or revision")
    return HubReference(match["repo"], match["quant"], path, revision)


def is_safe_path(path: str) -> bool:
    """Whether a path of a repository stays inside the directory that it is appended to."""
    parts = path.split("/")
    return not any(part in ("", ".", "..") or len(part) > 255 for part in parts) and path.isprintable()


def choose(files: Sequence[HubFile], reference: HubReference, quant: str | None) -> tuple[tuple[HubFile, Role], ...]:
    """Return the files of the model with their roles, the one that the engine opens first.

    Raises ProvisioningFailure, which lists what there is.
    """
    ordered = sorted(files, key=lambda file: file.path)
    model = _model(ordered, reference, reference.quant or quant)
    found: list[tuple[HubFile, Role]] = [(model, "model")]
    found += [(shard, "shard") for shard in _other_shards(ordered, model, reference)]
    if projector := _projector(ordered, model):
        found.append((projector, "mmproj"))
    return tuple(found)


def _model(files: Sequence[HubFile], reference: HubReference, quant: str | None) -> HubFile:
    models = [file for file in files if _is_model(file.path)]
    if reference.path:
        named = [file for file in files if file.path.lower() == reference.path.lower()]
        if named:
            return next((file for file in named if file.path == reference.path), named[0])
        raise _absent(reference, f"no file {reference.path}", models)
    if not models:
        raise ProvisioningFailure(
            f"{reference} has no GGUF file",
            "llama.cpp serves GGUF files: name a repository that has them.",
            Retry.AFTER_FIX,
        )
    for wanted in (quant,) if quant else DEFAULT_QUANTS:
        pattern = re.compile(re.escape(wanted) + "[.-]", re.IGNORECASE)
        if file := next((file for file in models if pattern.search(file.path)), None):
            return file
    if quant:
        raise _absent(reference, f"no model with the quantization {quant}", models)
    if len(models) == 1:
        return models[0]
    raise _absent(reference, f"several models, but none with {', '.join(DEFAULT_QUANTS)}", models)


def _absent(reference: HubReference, what: str, models: Sequence[HubFile]) -> ProvisioningFailure:
    names = [model.path for model in models]
    listed = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
    hint = (
        f"Available: {listed or 'no GGUF file'}. Name a quantization, as in {reference}:{DEFAULT_QUANTS[0]}, or a file."
    )
    return ProvisioningFailure(f"{reference} has {what}", hint, Retry.AFTER_FIX)


def _is_model(path: str) -> bool:
    name = path.rpartition("/")[2]
    shard = SHARD.fullmatch(path)
    return (
        name.endswith(".gguf")
        and not any(word in name for word in NO_MODELS)
        and (shard is None or int(shard["index"]) == 1)
    )


def _other_shards(files: Sequence[HubFile], model: HubFile, reference: HubReference) -> Iterator[HubFile]:
    by_path = {file.path: file for file in files}
    for path in all_parts(model.path)[1:]:
        if path not in by_path:
            message = f"{reference} has no {path}, a part of {model.path}"
            raise ProvisioningFailure(message, "Name another quantization or file.", Retry.AFTER_FIX)
        yield by_path[path]


def _projector(files: Sequence[HubFile], model: HubFile) -> HubFile | None:
    """Return the mmproj file nearest to the model: in the deepest directory above it, with the closest precision."""
    directory = model.path.split("/")[:-1]
    found = [
        (len(parts), -abs(_bits(file.path) - _bits(model.path)), file)
        for file in files
        if file.path.endswith(".gguf") and "mmproj" in file.path.rpartition("/")[2] and file.path != model.path
        for parts in [file.path.split("/")[:-1]]
        if directory[: len(parts)] == parts
    ]
    return max(found, key=lambda entry: entry[:2])[2] if found else None


def _bits(path: str) -> int:
    stem = path.rpartition("/")[2].removesuffix(".gguf")
    shard = SHARD.fullmatch(path)
    tag = TAG.search(shard["stem"] if shard else stem)
    digits = re.search(r"[0-9]{1,4}", tag[1]) if tag else None
    return int(digits[0]) if digits else 0
