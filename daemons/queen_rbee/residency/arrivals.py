"""When a pool that is not loaded will be: what is left of its load, and of what comes before it. Pure functions.

A load is expected to take as long as the last one of its pool. A pool that was never loaded is judged by its size and
the loads of others on its machine.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import inf
from statistics import median

from queen_rbee.residency.plan import fit_of, unserved
from queen_rbee.residency.situation import RULES, Phase, Resident, Rules, Situation, Wait

UNLOAD_S = 1.0
"""How long it takes until a stopped engine's memory is free."""
START_S = 1.0
"""How long an engine takes to start, without its model."""
BYTES_PER_S = 500e6
"""How fast a model is read on a machine that has not loaded any yet: a SATA SSD."""
OVERDUE = 0.1
"""A load that takes longer than expected is expected to take this much longer still, as a part of its time so far."""


def expected_load_s(pool: Resident, residents: Iterable[Resident]) -> float:
    """Return how long a load of `pool` takes as a whole."""
    if pool.load_s:
        return pool.load_s
    rates = [
        sum(each.need.values()) / each.load_s
        for each in residents
        if each.machine == pool.machine and each.load_s and sum(each.need.values())
    ]
    return START_S + sum(pool.need.values()) / (median(rates) if rates else BYTES_PER_S)


def remaining_load_s(pool: Resident, residents: Iterable[Resident], now: float) -> float:
    """Return how long a load of `pool` takes that has begun already."""
    elapsed_s = max(0.0, now - pool.loading_at) if pool.loading_at < inf else 0.0
    return max(expected_load_s(pool, residents) - elapsed_s, OVERDUE * elapsed_s)


def arrival_of(wait: Wait, situation: Situation, rules: Rules = RULES) -> tuple[Resident, float] | None:
    """Return the first pool of `wait` to be loaded, and in how many seconds; None if no time can be told.

    No time can be told while engine or model are being fetched, and while pools that are pinned use the memory.
    """
    pools = [each for each in situation.residents if each.key in wait.pools and not each.closed]
    times = [(pool, found) for pool in pools if (found := _arrival_s(pool, wait, situation, rules)) is not None]
    return min(times, key=lambda time: time[1], default=None)


def _arrival_s(pool: Resident, wait: Wait, situation: Situation, rules: Rules) -> float | None:
    if pool.phase is Phase.LOADED:
        return 0.0
    if pool.phase is Phase.LOADING:
        return remaining_load_s(pool, situation.residents, situation.now)
    if pool.phase not in (Phase.UNLOADED, Phase.UNLOADING):
        return None
    settled = replace(situation, residents=[_settled(each, situation) for each in situation.residents])
    fit = fit_of(next(each for each in settled.residents if each.key == pool.key), wait, settled, rules)
    if fit.wait_until == inf:
        return None
    blocked_s = (fit.wait_until or situation.now) - situation.now
    evicting_s = UNLOAD_S if fit.victims or fit.wait_until is not None else 0.0
    ahead_s = _ahead_s(pool, wait, situation)
    return max(ahead_s, blocked_s) + evicting_s + expected_load_s(pool, situation.residents)


def _settled(pool: Resident, situation: Situation) -> Resident:
    """Return `pool` as it is once its current load or unload has ended."""
    if pool.phase is Phase.UNLOADING:
        return replace(pool, phase=Phase.UNLOADED)
    if pool.phase is not Phase.LOADING:
        return pool
    loaded_at = situation.now + remaining_load_s(pool, situation.residents, situation.now)
    return replace(pool, phase=Phase.LOADED, loaded_at=loaded_at)


def _ahead_s(pool: Resident, wait: Wait, situation: Situation) -> float:
    """Return how long the machine of `pool` loads and unloads others before it."""
    there = [each for each in situation.residents if each.machine == pool.machine]
    loading = (each for each in there if each.phase is Phase.LOADING)
    running_s = sum(remaining_load_s(each, there, situation.now) for each in loading)
    ending_s = UNLOAD_S if any(each.phase is Phase.UNLOADING for each in there) else 0.0
    queued_s = 0.0
    for other in unserved(situation):
        if other.since >= wait.since or pool.key in other.pools:
            continue
        first = next((each for each in there if each.key in other.pools and each.phase is Phase.UNLOADED), None)
        queued_s += expected_load_s(first, there) if first else 0.0
    return running_s + ending_s + queued_s
