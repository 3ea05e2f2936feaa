"""The two base classes of everything that crosses a boundary, and the identifiers they share.

Validators are built when a model is first met (`defer_build`): a daemon keeps none, half a megabyte in all, for what it
never meets.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

POOL_ID_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
NODE_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
NODE_ID_RESERVED = "register"
"""No node's id: GET and DELETE of /v2/nodes/ID would not reach it, for there nodes register."""

PoolId = Annotated[str, StringConstraints(pattern=POOL_ID_PATTERN)]
ReplicaId = Annotated[str, StringConstraints(pattern=POOL_ID_PATTERN)]


class Inbound(BaseModel):
    """Read from outside: immutable, and unknown fields are refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Outbound(BaseModel):
    """Written by one daemon and read by others, perhaps of another release: unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)
