"""Models on disk for tests of the cache."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from engine_provisioner.cache.model_cache import ModelCache
from engine_provisioner.cache.records import ModelUse, key_of
from engine_provisioner.sources.model_records import ModelRecord, StoredFile

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that a test sets; each reading is a second later."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def url(name: str) -> str:
    return f"https://example.org/{name}.gguf"


def download(cache_dir: Path, name: str, size: int = 1000) -> ModelRecord:
    """Store a file of `size` bytes as the download of url(name), and return its record."""
    path = cache_dir / "models" / key_of(url(name)) / f"{name}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return ModelRecord(url(name), None, (StoredFile(path, size, None, "model"),), BEGIN)


def hub_file(cache_dir: Path, revision: str, name: str, content: bytes, repository: str = "models--org--name") -> Path:
    """Store a file as huggingface_hub does, and return its path in the snapshot."""
    base = cache_dir / "huggingface" / "hub" / repository
    blob = base / "blobs" / sha256(content).hexdigest()
    path = base / "snapshots" / revision / name
    for directory in (blob.parent, path.parent, base / "refs"):
        directory.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    path.symlink_to(Path("../../blobs") / blob.name)
    (base / "refs" / "main").write_text(revision)
    return path


def hub_record(path: Path, ref: str = "hf:org/name:Q4_0") -> ModelRecord:
    stored = StoredFile(path, path.stat().st_size, None, "model")
    return ModelRecord(ref, path.parent.name, (stored,), BEGIN)


def cache_in(cache_dir: Path, limit_bytes: int | None = None, *uses: ModelUse) -> ModelCache:
    return ModelCache(cache_dir, limit_bytes, lambda: uses, Clock())


async def listed(cache: ModelCache) -> list[str]:
    """Return the references of the models, the last used first."""
    return [used.model.record.ref for used in await cache.models()]
