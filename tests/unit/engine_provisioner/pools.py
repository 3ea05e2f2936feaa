"""Valid pools, engines and models for tests."""

from pathlib import Path
from typing import Any

from engine_provisioner.engine import Engine, LocalModel, Program
from engine_provisioner.spec.pool_spec import Pool

CHECKSUM = "sha256:" + "0" * 64
BINARY = {
    "mode": "binary",
    "url": "https://example.org/llama-server.tar.gz",
    "checksum": CHECKSUM,
    "allow_binary_downloads": True,
}


def pool(**keys: Any) -> Pool:
    """Return a pool for llama.cpp with a model on disk; `keys` replace or add keys."""
    return Pool.model_validate({"id": "default", "model": "file:/srv/model.gguf", "provisioning": BINARY, **keys})


def engine(*options: str) -> Engine:
    """Return an engine that accepts `options`."""
    return Engine(Program(("/opt/llama-server",), Path("/opt/llama-server")), "1", frozenset(options))


MODEL = LocalModel("file:/srv/model.gguf", Path("/srv/model.gguf"), 1000)
