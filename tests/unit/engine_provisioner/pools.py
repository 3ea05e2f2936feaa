"""Pools as tests want them: a right one, changed by a few keys."""

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
    """A pool on llama.cpp with a model on the disk."""
    return Pool.model_validate({"id": "default", "model": "file:/srv/model.gguf", "provisioning": BINARY, **keys})


def engine(*options: str) -> Engine:
    """An engine that knows `options`."""
    return Engine(Program(("/opt/llama-server",), Path("/opt/llama-server")), "1", frozenset(options))


MODEL = LocalModel("file:/srv/model.gguf", Path("/srv/model.gguf"), 1000)
