"""The two base classes of everything that crosses a boundary, and the identifiers they share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

POOL_ID_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"

PoolId = Annotated[str, StringConstraints(pattern=POOL_ID_PATTERN)]
ReplicaId = Annotated[str, StringConstraints(pattern=POOL_ID_PATTERN)]


# defer_build: a daemon that never meets a model keeps no validator for it (half a megabyte in all)


class Inbound(BaseModel):
    """Read from outside: immutable, and unknown fields are refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Outbound(BaseModel):
    """Written by one daemon and read by others, perhaps of another release: unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)
