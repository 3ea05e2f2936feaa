"""The GPUs of all vendors together: their indices, and which are lost or not readable. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pool_managerd.gpus.reader import DEVICES_MAX, Reading
from pool_managerd.pools.devices import Gpu, Gpus, MissingGpu

NO_DEVICE = "the driver reports no GPU"
NOT_LISTED = "its driver no longer finds it"


def merged(before: Gpus, readings: Mapping[str, Reading], own_indices: frozenset[str]) -> Gpus:
    """Return the GPUs after `readings` by vendor. The vendors in `own_indices` number their GPUs themselves.

    A GPU that was known before and is not among them is missing: lost, or of unknown state if its driver fails.
    """
    present = _numbered(before, readings, own_indices)
    missing = tuple(_missing(before, present, readings))[:DEVICES_MAX]
    return replace(before, devices=present, missing=missing, problem=_problem(readings, present))


def _numbered(before: Gpus, readings: Mapping[str, Reading], own_indices: frozenset[str]) -> tuple[Gpu, ...]:
    """Give the GPUs without an index of their vendor the one they had, or else the lowest that is free."""
    own = [gpu for vendor, reading in readings.items() if vendor in own_indices for gpu in reading.devices]
    others = [gpu for vendor, reading in readings.items() if vendor not in own_indices for gpu in reading.devices]
    here = {gpu.uuid for gpu in (*own, *others)}
    earlier = {gpu.uuid: gpu.index for gpu in before.known}
    taken = {gpu.index for gpu in own} | {gpu.index for gpu in before.known if gpu.uuid not in here}
    numbered = list(own)
    for gpu in sorted(others, key=lambda gpu: gpu.uuid not in earlier):  # those that have an index keep it
        index = earlier.get(gpu.uuid)
        if index is None or index in taken:
            index = next(number for number in range(len(taken) + 1) if number not in taken)
        taken.add(index)
        numbered.append(replace(gpu, index=index))
    return tuple(sorted(numbered, key=lambda gpu: (gpu.index, -1 if gpu.mig_index is None else gpu.mig_index)))


def _missing(before: Gpus, present: tuple[Gpu, ...], readings: Mapping[str, Reading]) -> Iterable[MissingGpu]:
    here = {gpu.uuid for gpu in present}
    lost_before = {each.gpu.uuid: each for each in before.missing if each.lost}
    for gpu in {gpu.uuid: gpu for gpu in before.known if gpu.uuid not in here}.values():
        reading = readings.get(gpu.vendor, Reading())
        if gpu.parent_uuid in here:
            continue  # a MIG instance that was removed
        if gpu.uuid in lost_before:
            yield lost_before[gpu.uuid]
        elif reading.problem:
            yield MissingGpu(gpu, reading.problem, lost=False)
        else:
            yield MissingGpu(gpu, NOT_LISTED, lost=True)


def _problem(readings: Mapping[str, Reading], present: tuple[Gpu, ...]) -> str | None:
    """Return why GPUs cannot be read. A driver that is not installed matters only if there is no GPU at all."""
    problems = [
        reading.problem for reading in readings.values() if reading.problem and not (reading.absent and present)
    ]
    return "; ".join(problems) or (None if present else NO_DEVICE)
