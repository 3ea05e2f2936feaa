"""The provisioning modes, in the order in which messages list them. A new mode is added here."""

from engine_provisioner.modes.binary import BinaryMode
from engine_provisioner.modes.container import ContainerMode
from engine_provisioner.modes.external import ExternalMode
from engine_provisioner.modes.mode import ProvisioningMode
from engine_provisioner.modes.package import PackageMode
from engine_provisioner.modes.source import SourceMode

MODES: list[type[ProvisioningMode]] = [ExternalMode, SourceMode, ContainerMode, PackageMode, BinaryMode]


def mode_names() -> list[str]:
    """Return the values that the key `mode` may have."""
    return [mode.mode_name() for mode in MODES]
