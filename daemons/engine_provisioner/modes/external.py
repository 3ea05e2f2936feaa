"""Provisioning mode `external`: an engine that runs on this machine without this daemon."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from engine_provisioner.modes.mode import OneLine, ProvisioningMode
from engine_provisioner.modes.planning import EnginePlan, PlanSite, Step, StepState
from llama_orch.contracts.handoff import loopback_url


class ExternalMode(ProvisioningMode):
    """An engine started by somebody else on this machine. The daemon watches and announces it."""

    starts_engine: ClassVar[bool] = False

    mode: Literal["external"]
    url: Annotated[OneLine, AfterValidator(loopback_url)]

    async def plan(self, _site: PlanSite) -> EnginePlan:
        """Return that nothing is to be done."""
        return EnginePlan((Step("engine", self.url, StepState.PRESENT, "watched, not started"),))
