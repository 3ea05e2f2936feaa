"""The usual process_* metrics, also where the sandbox hides the time of the boot in /proc/stat (ProcSubset=pid)."""

import time

from prometheus_client import ProcessCollector


class ProcessMetrics(ProcessCollector):
    """Memory, CPU time, descriptors and start time of this process. The collector of the library gives none there."""

    def _boot_time(self) -> float:
        return round(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME), 2)
