"""A reload of a daemon's configuration: what `systemctl reload` sends and what it gets back."""

from typing import Annotated

from pydantic import Field, StringConstraints

from llama_orch.contracts.base import Inbound, Outbound

RELOAD_PATH = "/v2/reload"

VariableName = Annotated[str, StringConstraints(max_length=256)]


class ServiceReload(Inbound):
    """The body of POST /v2/reload. `environment` is that of the unit now, as systemd reads it for ExecReload=."""

    environment: Annotated[dict[VariableName, str], Field(max_length=500)] | None = None


class ServiceReloaded(Outbound):
    """The answer: what was applied, and which changed variables have an effect only after a restart."""

    applied: list[str] = []
    needs_restart: list[str] = []
