"""The handoff file: how engine-provisioner announces a running engine (llama-orch-handoff(5)).

Owns the document's shape and the rule that an engine is reached on loopback only. Reading such files from a
directory that others can write to is `llama_orch.spool`'s business.
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
    """Return `value`, which must be http://HOST:PORT of this machine's loopback, without a slash at its end.

    Raises ValueError: anything else could make a daemon talk to a stranger on a file's word. Paths are put behind it,
    so it must have none itself.
    """
    found = LOOPBACK_URL.fullmatch(value)
    if found is None:
        raise ValueError("must be http://HOST:PORT, as in http://127.0.0.1:18080, and nothing else")
    if not 0 < int(found["port"]) < 65536:
        raise ValueError(f"port {found['port']} is out of range (1 to 65535)")
    if not is_loopback(found["host"].strip("[]").lower()):
        raise ValueError("must be a loopback address (127.0.0.0/8, [::1] or localhost)")
    return value.removesuffix("/")


class HandoffModel(Outbound):
    """The model an engine serves; `size_bytes` in bytes, `ctx_max` in tokens a slot."""

    id: Short
    path: Path
    digest: Short | None = None
    ctx_max: Annotated[int, Field(ge=1)] | None = None
    size_bytes: Annotated[int, Field(ge=0)] | None = None


class Handoff(Outbound):
    """One running engine. Only `pool_id`, `engine_version` and `url` are required of foreign writers."""

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
        """The name under which this handoff is published."""
        return f"{self.pool_id}-{self.replica_id}.json"
