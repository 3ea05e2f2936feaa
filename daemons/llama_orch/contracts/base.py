"""Base classes of the contract models, and common identifiers.

Validators are built on first use (`defer_build`), so a daemon spends no memory on models that it does not use, half a
megabyte in total.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

POOL_ID_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
NODE_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
NODE_ID_RESERVED = "register"
"""Not allowed as a node id: /v2/nodes/register is the path for registrations."""

PoolId = Annotated[str, StringConstraints(pattern=POOL_ID_PATTERN)]
ReplicaId = Annotated[str, StringConstraints(pattern=POOL_ID_PATTERN)]


class Inbound(BaseModel):
    """Input from clients: immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Outbound(BaseModel):
    """Data between daemons, possibly of different releases, and answers to clients: unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)
