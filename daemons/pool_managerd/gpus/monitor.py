"""Reads the GPUs again and again, and keeps their fences. The one owner of fences, energy totals and fault counts."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import trio

from llama_orch.telemetry.events import gpus as events
from llama_orch.telemetry.log_limit import LogLimit
from llama_orch.telemetry.records import emit
from pool_managerd.gpus import fencing
from pool_managerd.gpus.fault_source import FaultSource, follow
from pool_managerd.gpus.faults import Fault, Sighting, address
from pool_managerd.gpus.fence_file import FenceFile
from pool_managerd.gpus.fencing import Fencing, Step
from pool_managerd.gpus.inventory import merged
from pool_managerd.gpus.reader import Reader, Reading
from pool_managerd.gpus.totals import GpuTotals
from pool_managerd.gpus.xids import Severity, label, xid
from pool_managerd.pools.devices import Gpu, Gpus
from pool_managerd.pools.memory import MachineMemory, read_machine_memory
from pool_managerd.pools.node_pools import NodePools

LIMIT_S = 10.0
"""How long the readings of one vendor may take."""
UNKNOWN_GPU = "unknown"

log = logging.getLogger(__name__)


class GpuMonitor:
    """Reads by `readers` every `interval_s` seconds, and when a pool was loaded or unloaded.

    Looks for new GPUs every `discovery_s` seconds.
    """

    def __init__(
        self,
        node_pools: NodePools,
        readers: Mapping[str, Reader],
        totals: GpuTotals,
        directory: Path,
        *,
        interval_s: float,
        discovery_s: float,
    ) -> None:
        self.totals = totals
        self.fencing = Fencing()
        self.read_until_s: float | None = None
        """The Unix time up to which a run before this one has read the kernel log."""
        self._node_pools = node_pools
        self._readers = readers
        self._limiters = {vendor: trio.CapacityLimiter(1) for vendor in readers}
        self._own_indices = frozenset(vendor for vendor, reader in readers.items() if reader.own_indices)
        self._interval_s = interval_s
        self._discovery_s = discovery_s
        self._file = FenceFile(directory)
        self._file_trouble: str | None = None
        self._saves = trio.CapacityLimiter(1)
        self._unsaved = trio.Event()
        self._told = LogLimit()
        self._throttled: frozenset[str] = frozenset()

    async def load(self) -> None:
        """Take over the fences of the last run. An unusable file is logged and ignored."""
        try:
            self.fencing, self.read_until_s = await trio.to_thread.run_sync(self._file.load)
        except (OSError, ValueError) as error:
            emit(events.GPU_FENCES_NOT_KEPT, file=self._file.path, reason=error)
        self._node_pools.set_fences(self._words())

    async def run(self) -> None:
        """Read forever. Closes the readers when cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._save_changes)
                await self._read_forever()
        finally:
            with trio.move_on_after(1.0, shield=True):
                await self._save()
            with trio.move_on_after(1.0, shield=True):
                async with trio.open_nursery() as nursery:
                    for vendor in self._readers:
                        nursery.start_soon(self._close, vendor)

    async def follow(self, source: FaultSource) -> None:
        """Take faults from `source`, forever."""
        await follow(source, self.totals.faults.realign, self.take)

    async def _read_forever(self) -> None:
        discover_at_s, changed = trio.current_time(), False
        while True:
            discover = trio.current_time() >= discover_at_s
            if discover:
                discover_at_s = trio.current_time() + self._discovery_s
            readings: dict[str, Reading] = dict.fromkeys(self._readers, Reading())
            async with trio.open_nursery() as nursery:
                for vendor in self._readers:
                    nursery.start_soon(self._read, vendor, discover, readings)
            machine = await trio.to_thread.run_sync(read_machine_memory)
            # no await from here on: a fence that begins meanwhile would be lost
            gpus = merged(self._node_pools.gpus, readings, self._own_indices)
            if gpus.missing:
                discover_at_s = trio.current_time()
            self.apply(gpus, machine, changed=changed)
            changed = await self._node_pools.loads_changed.wait(self._interval_s)

    async def _read(self, vendor: str, discover: bool, readings: dict[str, Reading]) -> None:
        """Read one vendor's GPUs in a thread. One that hangs keeps its thread, and is asked again when that returns."""
        reader, name = self._readers[vendor], "NVML" if vendor == "nvidia" else f"the {vendor} driver"
        readings[vendor] = Reading(problem=f"{name} did not answer within {LIMIT_S:g} s")
        with trio.move_on_after(LIMIT_S):
            readings[vendor] = await trio.to_thread.run_sync(
                lambda: reader.read(discover=discover), limiter=self._limiters[vendor], abandon_on_cancel=True
            )

    async def _close(self, vendor: str) -> None:
        await trio.to_thread.run_sync(
            self._readers[vendor].close, limiter=self._limiters[vendor], abandon_on_cancel=True
        )

    def apply(self, gpus: Gpus, machine: MachineMemory | None = None, *, changed: bool = False) -> None:
        """Apply a reading: log what has changed, move fences and energy on, publish the GPUs and the memory.

        `changed`: it was made because a pool was loaded or unloaded.
        """
        before = self._node_pools.gpus
        log_changes(before, gpus)
        self._log_throttling(gpus)
        self.totals.energy.add_reading(gpus, self._node_pools.replicas, trio.current_time())
        self.totals.energy.keep_only(self._node_pools.replicas)
        self._node_pools.set_gpus(gpus, machine, changed=changed)
        self._step(fencing.after_reading(self.fencing, gpus, time.time()))

    def take(self, sightings: list[Sighting]) -> None:
        """Count and log faults, fence GPUs with hardware faults, and end the fences of GPUs that were reset."""
        for sighting in sightings:
            gpu = self._gpu(sighting.uuid, sighting.pci)
            if isinstance(sighting, Fault):
                self._count(sighting, gpu)
                if gpu:
                    self._step(fencing.after_fault(self.fencing, gpu, sighting))
            elif gpu:
                self._step(fencing.after_reset(self.fencing, gpu.uuid, sighting.at_s, sighting.text))

    def unfence(self, name: str) -> bool:
        """End the fence of the GPU with this index or UUID, as an operator says; whether it was fenced."""
        gpu = next((gpu for gpu in self._node_pools.gpus.known if name in (gpu.uuid, gpu.label)), None)
        uuid = gpu.uuid if gpu else name
        fenced = uuid in self.fencing.fences
        self._step(fencing.after_unfence(self.fencing, uuid, gpu.recovery if gpu else None, time.time()))
        return fenced

    def _gpu(self, uuid: str | None, pci: str | None) -> Gpu | None:
        """Return the whole GPU with this UUID or PCI address, among those known."""
        for gpu in self._node_pools.gpus.known:
            if gpu.mig_index is None and (gpu.uuid == uuid or (pci and gpu.pci and address(gpu.pci) == pci)):
                return gpu
        return None

    def _count(self, fault: Fault, gpu: Gpu | None) -> None:
        device = gpu.uuid if gpu else UNKNOWN_GPU
        if not self.totals.faults.add(fault.source, device, fault.code):
            return
        known, count = xid(fault.code), self.totals.faults.total[device, fault.code]
        if not self._told.due(f"{device} {label(fault.code)}"):
            return
        event = events.GPU_APPLICATION_FAULT if known.severity is Severity.APPLICATION else events.GPU_FAULT
        name = f"{gpu.label} ({gpu.name})" if gpu else fault.pci or UNKNOWN_GPU
        fields = {"device": name, "xid": fault.code, "meaning": known.meaning, "count": count, "action": known.action}
        emit(event, **fields, uuid=gpu.uuid if gpu else None, detail=fault.text or "no details")

    def _step(self, step: Step) -> None:
        if step.state == self.fencing:
            return
        self.fencing = step.state
        for over, reason in step.ended:
            emit(events.GPU_UNFENCED, device=over.device, uuid=over.uuid, reason=reason)
        if fence := step.fenced:
            emit(events.GPU_FENCED, device=fence.device, uuid=fence.uuid, reason=fence.reason, action=fence.action)
        self._node_pools.set_fences(self._words())
        self._unsaved.set()

    def _words(self) -> dict[str, str]:
        return {uuid: fence.words for uuid, fence in self.fencing.fences.items()}

    def _log_throttling(self, gpus: Gpus) -> None:
        """Log the GPUs that have become too hot or slow. One that is cool again may be logged again."""
        hot = {gpu.uuid: reason for gpu in gpus.devices if (reason := gpu.overheated)}
        for gpu in gpus.devices:
            if gpu.uuid in hot and gpu.uuid not in self._throttled and self._told.due(f"{gpu.uuid} throttled"):
                emit(events.GPU_THROTTLED, device=f"{gpu.label} ({gpu.name})", uuid=gpu.uuid, reason=hot[gpu.uuid])
        self._throttled = frozenset(hot)

    async def _save_changes(self) -> None:
        while True:
            await self._unsaved.wait()
            self._unsaved = trio.Event()
            await self._save()

    async def _save(self) -> None:
        try:
            await trio.to_thread.run_sync(self._file.save, self.fencing, time.time(), limiter=self._saves)
            self._file_trouble = None
        except OSError as error:
            trouble = error.strerror or str(error)
            if trouble != self._file_trouble:
                emit(events.GPU_FENCES_NOT_KEPT, file=self._file.path, reason=trouble)
            self._file_trouble = trouble


def log_changes(before: Gpus, after: Gpus) -> None:
    """Log what has changed since the last reading: GPUs found, lost and returned, and drivers that fail."""
    if after.problem and after.problem != before.problem:
        emit(events.GPUS_UNKNOWN, reason=after.problem)
    earlier = {each.gpu.uuid: each for each in before.missing}
    known = {gpu.uuid for gpu in before.devices} | set(earlier)
    if new := [gpu for gpu in after.devices if gpu.uuid not in known]:
        emit(events.GPUS_FOUND, gpus=", ".join(f"{gpu.label} {gpu.name}" for gpu in new))
    for gpu in after.devices:
        if gpu.uuid in earlier:
            emit(events.GPU_RETURNED, device=f"{gpu.label} ({gpu.name})", uuid=gpu.uuid)
    for each in after.missing:
        if each.lost and not (each.gpu.uuid in earlier and earlier[each.gpu.uuid].lost):
            emit(events.GPU_LOST, device=f"{each.gpu.label} ({each.gpu.name})", uuid=each.gpu.uuid, reason=each.reason)
