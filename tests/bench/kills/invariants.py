"""What must hold once a machine has settled after a kill. Pure: observations in, violations out."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

SETTLED = ("ready", "unloaded", "failed")
DIGEST = re.compile(r"[0-9a-f]{64}")


def unsettled(seen: Mapping[str, Any], pools: list[dict[str, Any]], configured: frozenset[str]) -> Iterator[str]:
    """Yield what is wrong with daemons, pools, units and processes, as seen in the machine and by the queen."""
    units = seen["units"]
    for daemon in ("queen-rbee", "pool-managerd", "engine-provisioner"):
        if units.get(daemon) != "active":
            yield f"{daemon} is {units.get(daemon)}"
    engines = {unit: state for unit, state in units.items() if "@" in unit}
    active = {unit for unit, state in engines.items() if state == "active"}
    busy = sorted(unit for unit, state in engines.items() if state not in ("active", "inactive", "failed"))
    yield from (f"unit {unit} is {engines[unit]}" for unit in busy)
    yield from _stray(seen["processes"], active)
    yield from _inconsistent(pools, configured, active, seen["handoffs"])


def _stray(processes: list[dict[str, Any]], active: set[str]) -> Iterator[str]:
    """Yield processes that belong to no active unit, and units that have not exactly one engine."""
    for kind in ("engine", "conmon"):
        found = Counter(process["unit"] for process in processes if process["kind"] == kind)
        for unit, count in sorted(found.items(), key=str):
            if unit not in active:
                yield f"{count} processes {kind} of {unit or 'no unit'}, which is not active"
            elif count > 1:
                yield f"{count} processes {kind} of {unit}"
        if kind == "engine":
            yield from (f"{unit} is active without an engine process" for unit in sorted(active - set(found)))


def _inconsistent(
    pools: list[dict[str, Any]], configured: frozenset[str], active: set[str], handoffs: list[str]
) -> Iterator[str]:
    """Yield pools in states that pass or lack a cause, and those whose state does not agree with their units."""
    states = {pool["pool_id"]: pool for pool in pools}
    for missing in sorted(configured - set(states)):
        yield f"queen-rbee does not know pool {missing}"
    for pool_id, pool in states.items():
        if pool["state"] not in SETTLED or (pool["state"] == "failed" and not pool.get("last_error")):
            yield f"pool {pool_id} is {pool['state']} ({pool.get('last_error')})"
    ready = {pool_id for pool_id, pool in states.items() if pool["state"] == "ready"}
    loaded = {unit.partition("@")[2].removesuffix(".service") for unit in active}
    announced = {name.removesuffix("-r0.json") for name in handoffs}
    if ready != loaded:
        yield f"ready pools are {sorted(ready)}, but active units are of {sorted(loaded)}"
    if not announced <= ready:  # pool-managerd removes those that it has read
        yield f"ready pools are {sorted(ready)}, but handoff files are of {sorted(announced)}"


def damaged(seen: Mapping[str, Any], digests: Mapping[str, str]) -> Iterator[str]:
    """Yield each file of the cache that is not what its record, its name or `digests`, by file name, say.

    And each container that remains although its pool's unit is not active.
    """
    for name in seen["containers"]:
        pool_id = name.removeprefix("llama-engine-")
        if seen["units"].get(f"llama-engine-container@{pool_id}.service") != "active":
            yield f"container {name} remains without its unit"
    for each in seen["records"]:
        found = each["found"]
        if found is None:
            yield f"{each['path']} of {each['ref']} is not there"
        elif found["size_bytes"] != each["size_bytes"] or found["digest"] != (each["digest"] or found["digest"]):
            yield f"{each['path']} of {each['ref']} has {found}, recorded are {each['size_bytes']} {each['digest']}"
    for path, found in seen["blobs"].items():
        name = PurePosixPath(path).name
        if DIGEST.fullmatch(name) and (found is None or found["digest"] != f"sha256:{name}"):
            yield f"blob {path} has {found}"
    for path, found in seen["models"].items():
        expected = digests.get(PurePosixPath(path).name)
        if expected and (found is None or found["digest"] != expected):
            yield f"model {path} has {found}, expected is {expected}"
