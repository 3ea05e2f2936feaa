"""What is added up for GPUs while the daemon runs, for metrics and the API."""

from dataclasses import dataclass, field

from pool_managerd.gpus.energy import EnergyMeter
from pool_managerd.gpus.faults import Counts


@dataclass(frozen=True)
class GpuTotals:
    """Energy in J, generated tokens, and faults by UUID and code. The monitor owns and changes them."""

    energy: EnergyMeter = field(default_factory=EnergyMeter)
    faults: Counts = field(default_factory=Counts)
