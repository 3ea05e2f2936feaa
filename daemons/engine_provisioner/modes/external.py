"""Provisioning mode `external`: an engine that runs on this machine without this daemon."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from engine_provisioner.modes.mode import OneLine, ProvisioningMode
from llama_orch.contracts.handoff import loopback_url


class ExternalMode(ProvisioningMode):
    """An engine started by somebody else on this machine. The daemon watches and announces it."""

    starts_engine: ClassVar[bool] = False

    mode: Literal["external"]
    url: Annotated[OneLine, AfterValidator(loopback_url)]
