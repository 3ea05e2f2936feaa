"""The cache directory of the Hugging Face hub, shared with huggingface_hub and llama.cpp.

`models--ORG--REPO/` has `blobs/<sha256>`, `snapshots/<commit>/PATH` (links to blobs), `refs/<revision>` (a commit) and
`trees/<commit>.json` (the files of a commit, format 1 of huggingface_hub's _tree_cache.py).
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine_provisioner.sources.hf_reference import HubFile, HubReference, is_safe_path
from llama_orch.files import durable

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
SNAPSHOT_FILES = 10_000
TAG = "Signature: 8a477f597d28d172789f06886806bc55\n"
"""See https://bford.info/cachedir/: backup programs leave such a directory out."""


class HubCache:
    """The part of the cache for one repository. All methods block and raise OSError."""

    def __init__(self, root: Path, repo: str) -> None:
        self._root = root
        self.directory = root / f"models--{repo.replace('/', '--')}"

    def commit(self, reference: HubReference) -> str | None:
        """Return the commit that the reference's revision had when it was last fetched."""
        if COMMIT.fullmatch(reference.revision):
            return reference.revision
        try:
            text = (self.directory / "refs" / reference.revision).read_text(errors="replace").strip()
        except OSError:
            return None
        return text if COMMIT.fullmatch(text) else None

    def listing(self, commit: str) -> list[HubFile] | None:
        """Return the files of a commit if the listing was stored."""
        try:
            document = json.loads((self.directory / "trees" / f"{commit}.json").read_bytes())
            if document["format_version"] != 1:
                return None
            entries = document["files"].items()
            return hub_files(
                (path, entry["size"], entry["blob_id"], entry.get("lfs_sha256")) for path, entry in entries
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def present(self, commit: str) -> list[HubFile]:
        """Return the GGUF files of a commit that are in the cache."""
        snapshot = self.directory / "snapshots" / commit
        found = []
        for _, path in zip(range(SNAPSHOT_FILES), snapshot.rglob("*.gguf"), strict=False):
            if path.is_file():
                name = path.resolve().name
                sha256 = name if SHA256.fullmatch(name) else None
                found.append(HubFile(path.relative_to(snapshot).as_posix(), path.stat().st_size, name, sha256))
        return found

    def blob(self, file: HubFile) -> Path:
        """Return where the content of `file` is stored."""
        return self.directory / "blobs" / file.blob

    def snapshot(self, commit: str, file: HubFile) -> Path:
        """Return the path of `file` in a commit."""
        return self.directory / "snapshots" / commit / file.path

    def finish(
        self, reference: HubReference, commit: str, listing: Sequence[HubFile], fetched: Iterable[HubFile]
    ) -> None:
        """Link the snapshot of `commit` to the blobs in `fetched`, and store what was learned of the commit."""
        for file in fetched:
            link(self.snapshot(commit, file), self.blob(file))
        trees = self.directory / "trees"
        trees.mkdir(exist_ok=True)
        document = {"format_version": 1, "files": {file.path: _tree_entry(file) for file in listing}}
        durable.replace(trees / f"{commit}.json", json.dumps(document, indent=1).encode())
        if reference.revision != commit:
            ref = self.directory / "refs" / reference.revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            durable.replace(ref, commit.encode())
        tag = self._root / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(TAG)


def link(path: Path, target: Path) -> None:
    """Make `path` a relative link to `target`, replacing what is there. Blocks; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = os.path.relpath(target, path.parent)
    if path.is_symlink() and os.readlink(path) == text:
        return
    draft = path.with_name(f".{path.name}.link")
    draft.unlink(missing_ok=True)
    draft.symlink_to(text)
    draft.rename(path)
    durable.sync_directory(path.parent)


def hub_files(entries: Iterable[tuple[object, object, object, object]]) -> list[HubFile]:
    """Return files made of (path, size, blob id, SHA-256 or None) as a server or a file names them.

    Entries with an unsafe path or an unknown kind of id are left out.
    """
    found = []
    for path, size, blob, sha256 in entries:
        large = isinstance(sha256, str) and SHA256.fullmatch(sha256) is not None
        name = sha256 if large else blob
        if not (isinstance(path, str) and isinstance(size, int) and isinstance(name, str)):
            continue
        if is_safe_path(path) and BLOB.fullmatch(name):
            found.append(HubFile(path, size, name, name if large else None))
    return found


def _tree_entry(file: HubFile) -> dict[str, object]:
    entry: dict[str, object] = {"size": file.size, "blob_id": file.blob}
    return entry | ({"lfs_sha256": file.sha256, "lfs_size": file.size} if file.sha256 else {})
