"""A new pool for the pools files, from little more than a reference of a model. Pure functions."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine_provisioner.sources.model_name import model_name
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.pools_file import parse_files
from engine_provisioner.spec.toml_text import pool_text
from llama_orch.contracts.pool_files import EngineChoice, PoolDraft

NAME_LIMIT = 48
XLLAMACPP = "2026.10.11549"
"""The version that is installed if nothing else is there."""
PACKAGE = {"mode": "package", "name": "llama.cpp", "allow_package_installs": True}
PIP = {"mode": "package", "name": "pip:xllamacpp", "version": XLLAMACPP, "allow_package_installs": True}

Files = Sequence[tuple[Path, bytes]]


@dataclass(frozen=True)
class Draft:
    """A pool to be written to `path`; no `content` if it is there already. `note` says what was chosen."""

    pool: Pool
    path: Path
    content: str | None
    note: str

    @property
    def pool_id(self) -> str:
        return self.pool.id


def make_draft(request: PoolDraft, files: Files, directory: Path, llama_server: str | None) -> Draft:
    """Return the drop-in file for `request`, valid together with the present `files`. Raises PoolsFileError.

    `llama_server` is the program of that name on the PATH, if there is one.
    """
    configured = parse_files(files)
    if request.pool_id is None:
        for path, pool in configured:
            if pool.model and pool.model.ref == request.model:
                return Draft(pool, path, None, f"pool {pool.id} has this model already")
    pool_id = request.pool_id or pool_name(request.model, [pool.id for _path, pool in configured])
    path = directory / f"{pool_id}.toml"
    others = [(other, content) for other, content in files if other != path]
    provisioning, note = choose_engine(
        request.engine, [pool for where, pool in configured if where != path], llama_server
    )
    keys: dict[str, object] = {"id": pool_id, "model": request.model, **request.keys}
    keys |= {"id": pool_id, "provisioning": provisioning}
    content = "# written by orchctl\n" + pool_text(keys)
    drafted = sorted([*others, (path, content.encode())], key=lambda file: (file[0].parent == directory, file[0]))
    pool = next(pool for _path, pool in parse_files(drafted) if pool.id == pool_id)
    same = dict(files).get(path) == content.encode()
    return Draft(pool, path, None if same else content, note)


def pool_name(ref: str, taken: Sequence[str]) -> str:
    """Return a pool id like the file name of `ref`; with a digest of `ref` if it is taken by another pool."""
    words = re.sub(r"^[a-z0-9]+:", "", model_name(ref)).rstrip("/").rpartition("/")[2].removesuffix(".gguf").lower()
    name = re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:NAME_LIMIT].strip("-") or "model"
    return name if name not in taken else f"{name}-{hashlib.sha256(ref.encode()).hexdigest()[:8]}"


def choose_engine(
    choice: EngineChoice | None, pools: Sequence[Pool], llama_server: str | None
) -> tuple[dict[str, object], str]:
    """Return the table `provisioning` and why: as chosen, else as another pool has it, else what is installed."""
    if choice is None:
        for pool in pools:
            if pool.engine == "llamacpp" and pool.provisioning.starts_engine:
                return pool.provisioning.model_dump(mode="json", exclude_unset=True), f"engine as in pool {pool.id}"
        choice = "package" if llama_server else "pip"
    if choice == "package":
        return PACKAGE, f"engine: {llama_server or 'llama-server of the package llama.cpp'}"
    return PIP, f"engine: pip:xllamacpp {XLLAMACPP}, for the CPU"
