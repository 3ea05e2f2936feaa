"""A provisioning mode that the pools file accepts and this release cannot run: `container`."""

from typing import Literal

from engine_provisioner.modes.mode import OneLine, ProvisioningMode


class ContainerMode(ProvisioningMode):
    """An engine in a container (podman or docker)."""

    mode: Literal["container"]
    image: OneLine
    tag: OneLine = "latest"
