"""The handoff file, with which engine-provisioner announces a running engine (llama-orch-handoff(5)).

Defines the format, including the rule that engines are addressed only on loopback. `llama_orch.spool` reads the files.
"""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from llama_orch.addresses import is_loopback
from llama_orch.contracts.base import Outbound, PoolId, ReplicaId
from llama_orch.contracts.engines import EngineKind, Workload

Short = Annotated[str, StringConstraints(min_length=1, max_length=256)]
LOOPBACK_URL = re.compile(r"http://(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+):(?P<port>[0-9]{1,5})/?")

Path = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


def loopback_url(value: str) -> str:
    """Return `value` without a trailing slash if it is http://HOST:PORT with a loopback host.

    Raises ValueError for anything else: a file must not be able to direct a daemon to another machine. The URL must
    have no path, since callers append one.
    """
    found = LOOPBACK_URL.fullmatch(value)
    if found is None:
        raise ValueError("must be http://HOST:PORT without a path, for example http://127.0.0.1:18080")
    if not 0 < int(found["port"]) < 65536:
        raise ValueError(f"port {found['port']} is out of range (1 to 65535)")
    if not is_loopback(found["host"].strip("[]").lower()):
        raise ValueError("must be a loopback address (127.0.0.0/8, [::1] or localhost)")
    return value.removesuffix("/")


class HandoffModel(Outbound):
    """The model of an engine. `ctx_max` is in tokens per slot."""

    id: Short
    path: Path
    digest: Short | None = None
    ctx_max: Annotated[int, Field(ge=1)] | None = None
    size_bytes: Annotated[int, Field(ge=0)] | None = None


class Handoff(Outbound):
    """One running engine. Only `pool_id`, `engine_version` and `url` are required."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    pool_id: PoolId
    replica_id: ReplicaId = "r0"
    engine: EngineKind = "llamacpp"
    engine_version: Short
    provisioning_mode: Literal["external", "source", "container", "package", "binary"] | None = None
    url: Annotated[str, StringConstraints(max_length=512), AfterValidator(loopback_url)]
    model: HandoffModel | None = None
    device_mask: Short | None = None
    slots_total: Annotated[int, Field(ge=1, le=4096)] | None = None
    slots_free: Annotated[int, Field(ge=0, le=4096)] | None = None
    flags: Annotated[list[Short], Field(max_length=256)] = []
    workloads: Annotated[list[Workload], Field(min_length=1, max_length=8)] | None = None
    pid: Annotated[int, Field(ge=1)] | None = None
    unit: Short | None = None
    created_at: datetime | None = None

    @property
    def file_name(self) -> str:
        """The file name of this handoff."""
        return f"{self.pool_id}-{self.replica_id}.json"
