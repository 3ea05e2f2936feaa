"""The values of mode source's keys: places to get the source from, refs, and flags for cmake."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from engine_provisioner.modes.mode import OneLine
from llama_orch.addresses import is_loopback
from llama_orch.contracts.base import Inbound

REF = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\-][^\x00-\x20\x7f~^:?*\[\\]*")
"""What git-check-ref-format(1) allows, and no option."""
OWNED_FLAGS = {
    "-S": "the daemon chooses the directories",
    "-B": "the daemon chooses the directories",
    "-G": "use the key generator",
    "-P": "only a configuration is built",
    "-E": "only a configuration is built",
    "-N": "only a configuration is built",
    "--build": "only a configuration is built",
    "--install": "only what the engine needs is installed",
    "--open": "only a configuration is built",
}
"""Flags of cmake that the daemon sets or that do something else, and why."""


def repository_url(value: str) -> str:
    """Return the URL of a repository as git takes it. Raises ValueError."""
    if value.startswith("file:/"):
        return f"file:///{value.removeprefix('file:').lstrip('/')}"
    parts = urlsplit(value)
    if parts.scheme in ("https", "ssh") and parts.hostname and parts.path.strip("/"):
        return value
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return value
    if re.fullmatch(r"[^/:\s]+@[^/:\s]+:\S+", value):
        raise ValueError(f"must be a URL: ssh://{value.replace(':', '/', 1)}")
    raise ValueError("must be https://…, ssh://… or file:/absolute/path (http:// from this machine only)")


def archive_url(value: str) -> str:
    """Return the URL of an archive. Raises ValueError."""
    if value.startswith("file:/"):
        return f"file:///{value.removeprefix('file:').lstrip('/')}"
    parts = urlsplit(value)
    if parts.scheme in ("https", "http") and parts.hostname:
        return value
    raise ValueError("must be https://…, http://… or file:/absolute/path")


def git_ref(value: str) -> str:
    """Return a branch, tag or commit. Raises ValueError."""
    if not REF.fullmatch(value) or ".." in value or value.endswith(("/", ".lock", ".")):
        raise ValueError("must be the name of a branch or tag, or a commit")
    return value


def cmake_flag(value: str) -> str:
    """Return a flag for configuring. Raises ValueError."""
    if not value.startswith("-"):
        raise ValueError("must begin with -, as in -DGGML_CUDA=ON")
    for name, why in OWNED_FLAGS.items():
        if value == name or (value.startswith(name) and (len(name) == 2 or value[len(name)] in "= ")):
            raise ValueError(f"{name} is not allowed: {why}")
    return value


class Build(Inbound):
    """How the source is compiled. `cache_dir` holds build directories, which make later builds faster."""

    model_config = ConfigDict(strict=True)

    cmake_flags: Annotated[list[Annotated[OneLine, AfterValidator(cmake_flag)]], Field(max_length=200)] = []
    generator: OneLine | None = None
    cache_dir: Annotated[str, StringConstraints(max_length=1024, pattern=r"^/[^\x00-\x1f]*$")] | None = None
