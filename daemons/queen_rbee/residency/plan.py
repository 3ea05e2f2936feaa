"""Which pools to load and which to unload, from what waits, what is loaded and what memory is free. Pure functions.

Memory is counted in bytes on each device, not in models. A pool is unloaded to make room only while it is idle, unless
others have waited longer than `Rules.patience_s`: then it gets no new tasks, and is unloaded once its tasks have ended.
A machine loads or unloads one bundle at a time, so that each decision sees the memory that the last one left.

If all loaded pools of a model are busy for longer than `Rules.patience_s`, another is loaded beside them, but only into
free memory.
"""

from collections.abc import Iterable, Sequence
from math import inf

from queen_rbee.pools.source_reports import PoolKey
from queen_rbee.residency.actions import Fit, Load, Plan, Unload
from queen_rbee.residency.situation import RULES, Phase, Resident, Rules, Situation, Wait

LOOK_AGAIN_S = 0.5
"""How much later than its last task ends a pool may be unloaded that is not kept alive at all."""


def make_plan(situation: Situation, rules: Rules = RULES) -> Plan:
    """Return what to load and unload. At most one bundle a machine changes at a time."""
    return _Planner(situation, rules).run()


def unserved(situation: Situation) -> list[Wait]:
    """Return what waits for pools of which none is loaded or being loaded, in the order of service."""
    return _Planner(situation, RULES).unserved()


def room_is_needed(room_for: frozenset[PoolKey], situation: Situation) -> bool:
    """Return whether anything still waits for one of `room_for` to be loaded."""
    return any(wait.pools & room_for for wait in unserved(situation))


def fit_of(pool: Resident, wait: Wait, situation: Situation, rules: Rules = RULES) -> Fit:
    """Return how `pool` gets into memory for `wait`, as if it were the first to be served."""
    return _Planner(situation, rules).fit(pool, wait)


class _Planner:
    def __init__(self, situation: Situation, rules: Rules) -> None:
        self._all = {resident.key: resident for resident in situation.residents}
        self._situation = situation
        self._rules = rules
        self._now = situation.now
        self._busy_machines = {
            pool.machine for pool in situation.residents if pool.phase in (Phase.LOADING, Phase.UNLOADING)
        }
        self._needed = frozenset(key for wait in situation.waits for key in wait.pools)
        self._actions: list[Load | Unload] = []
        self._blocked: dict[Wait, str] = {}
        self._due_at = inf

    def run(self) -> Plan:
        for wait in self._waits():
            self._serve(wait)
        for resident in self._all.values():
            self._expire(resident)
        return Plan(tuple(self._actions), self._due_at, self._blocked)

    def _waits(self) -> Iterable[Wait]:
        wanted = (pool for pool in self._all.values() if pool.wanted and pool.phase is Phase.UNLOADED)
        return (*self._situation.waits, *(Wait(frozenset([pool.key]), -inf) for pool in wanted))

    def unserved(self) -> list[Wait]:
        """Return the waits of which no pool is loaded or being loaded."""
        return [wait for wait in self._waits() if not self._serving(wait)]

    def _pools(self, wait: Wait) -> list[Resident]:
        return [self._all[key] for key in sorted(wait.pools) if key in self._all]

    def _serving(self, wait: Wait) -> list[Resident]:
        """Return the pools of `wait` that are loaded or being loaded."""
        return [each for each in self._pools(wait) if each.phase in (Phase.LOADING, Phase.LOADED) and not each.closed]

    def _serve(self, wait: Wait) -> None:
        """Load one of the pools of `wait`; while others of them are loaded, only if it has waited for long."""
        serving = self._serving(wait)
        if serving and not self._wants_another(wait, serving):
            return
        pools = self._pools(wait)
        fits = [self.fit(pool, wait) for pool in pools if pool.phase is Phase.UNLOADED and not pool.closed]
        if serving:
            fits = [each for each in fits if each.possible and not each.victims and not self._short(each.load, ())]
        if not fits:
            return
        best = min(fits, key=lambda fit: (not fit.possible, fit.evicted))
        if best.wait_until is not None:
            self._blocked[wait] = best.reason
            self._due_at = min(self._due_at, best.wait_until)
            return
        names, keys = ", ".join(pool.key[0] for pool in best.load), frozenset(pool.key for pool in best.load)
        reason = f"to make room for {names}"
        self._actions += [Unload(victim.key, "room", reason, keys) for victim in best.victims]
        why = "tasks wait for it beside busy pools" if serving else ""
        self._actions += [] if best.victims else [Load(pool.key, why or self._reason(pool)) for pool in best.load]
        self._busy_machines.add(best.load[0].machine)

    def _wants_another(self, wait: Wait, serving: list[Resident]) -> bool:
        """Whether tasks have waited for long although pools are loaded for them."""
        if wait.promised or any(each.phase is Phase.LOADING for each in serving):
            return False
        patient_until = wait.since + self._rules.patience_s
        wants = patient_until <= self._now and all(each.leases for each in serving)
        if not wants:  # of a pool that was loaded only just now, slots are taken in a moment
            self._due_at = min(self._due_at, max(patient_until, self._now + LOOK_AGAIN_S))
        return wants

    def _reason(self, pool: Resident) -> str:
        """Return why `pool` is loaded."""
        if pool.key in self._needed:
            return "tasks wait for it"
        return "requested by an operator" if pool.wanted else f"it belongs to group {pool.group}"

    def _expire(self, pool: Resident) -> None:
        """Unload a pool that has been idle for longer than it is kept alive."""
        if pool.phase is not Phase.LOADED or pool.machine in self._busy_machines:
            return
        members = self._bundle(pool)
        if any(member.keep_alive_s is None for member in members):
            return
        if any(member.leases or member.key in self._needed for member in members):
            self._due_at = min(self._due_at, self._now + max(LOOK_AGAIN_S, pool.keep_alive_s or 0.0))
            return
        idle_at = max(max(member.used_at, member.loaded_at) + (member.keep_alive_s or 0.0) for member in members)
        if idle_at > self._now:
            self._due_at = min(self._due_at, idle_at)
        elif pool.phase is Phase.LOADED:
            self._actions.append(Unload(pool.key, "idle", f"idle for {_span(pool.keep_alive_s or 0.0)}"))

    def _bundle(self, pool: Resident) -> tuple[Resident, ...]:
        """Return the pools that are loaded and unloaded together with `pool`."""
        if pool.group is None or pool.exclusive:
            return (pool,)
        members = (each for each in self._all.values() if each.group == pool.group and each.machine == pool.machine)
        return tuple(member for member in members if not member.exclusive and member.phase is not Phase.FAILED)

    def fit(self, pool: Resident, wait: Wait) -> Fit:
        load = tuple(member for member in self._bundle(pool) if member.phase is Phase.UNLOADED)
        if pool.machine in self._busy_machines:
            return Fit(load, wait_until=inf, reason="another pool is being loaded or unloaded there")
        rivals = [
            each
            for each in self._all.values()
            if each.machine == pool.machine
            and each.in_memory
            and each.key != pool.key
            and pool.exclusive
            and each.exclusive
            and each.group == pool.group
        ]
        victims: list[Resident] = []
        for rival in rivals:
            if (until := self._evictable_at(rival, wait)) > self._now:
                return Fit(load, wait_until=until, reason=_holds(rival))
            victims.append(rival)
        return self._with_room(load, victims, wait)

    def _with_room(self, load: tuple[Resident, ...], victims: list[Resident], wait: Wait) -> Fit:
        """Add victims, the longest unused first, until `load` fits; then leave out those that it fits without."""
        machine, mandatory = load[0].machine, len(victims)
        if not self._short(load, victims):
            return self._found(load, victims)
        if self._lags(load, victims):
            return Fit(load, wait_until=self._situation.settled_at[machine] + self._rules.settle_s, reason=LAGGING)
        devices = {device for pool in load for device in pool.need}
        candidates = [
            each
            for each in self._all.values()
            if each.machine == machine
            and each.phase is Phase.LOADED
            and each not in victims
            and each not in load
            and devices & each.need.keys()
        ]
        earliest, blocker = inf, ""
        for candidate in sorted(candidates, key=lambda each: (each.leases > 0, each.used_at, each.key)):
            if candidate in victims:
                continue
            bundle = self._bundle(candidate)
            until = max(self._evictable_at(member, wait) for member in bundle)
            if until > self._now:
                earliest, blocker = min(earliest, until), blocker or _holds(candidate)
                continue
            victims += [member for member in bundle if member not in victims and member.phase is Phase.LOADED]
            if not self._short(load, victims):
                break
        short = self._short(load, victims)
        if short and (earliest < inf or not self._alone(load, victims)):
            return Fit(load, wait_until=earliest, reason=blocker or f"{short} is used by others")
        return self._found(load, self._without_spare(load, victims, mandatory))

    def _without_spare(self, load: Sequence[Resident], victims: list[Resident], mandatory: int) -> list[Resident]:
        kept = list(victims)
        for victim in victims[mandatory:]:
            bundle = self._bundle(victim)
            fewer = [each for each in kept if each not in bundle]
            if victim in kept and not self._short(load, fewer):
                kept = fewer
        return kept

    def _found(self, load: tuple[Resident, ...], victims: Sequence[Resident]) -> Fit:
        return Fit(load, tuple(victims), sum(sum(victim.need.values()) for victim in victims))

    def _evictable_at(self, pool: Resident, wait: Wait) -> float:
        """Return when `pool` may be unloaded for `wait`; infinity if not before something changes."""
        if pool.pinned or pool.phase is not Phase.LOADED:
            return inf
        resident_until = pool.loaded_at + max(self._rules.residence_s, self._rules.residence_loads * pool.load_s)
        if pool.leases or pool.key in self._needed:
            return max(resident_until, wait.since + self._rules.patience_s)
        return self._now if pool.served else resident_until

    def _room(self, machine: str, device: str, victims: Sequence[Resident], *, reported: bool) -> float:
        """Return the bytes free on a device once `victims` are unloaded, by the report or by what is loaded there."""
        budget = self._situation.budgets.get(machine, {}).get(device)
        if budget is None:
            return inf
        freed = sum(victim.need.get(device, 0) for victim in victims)
        if reported:
            return budget.free + freed
        loaded = (each for each in self._all.values() if each.machine == machine and each.in_memory)
        return budget.total - sum(each.need.get(device, 0) for each in loaded) + freed

    def _short(self, load: Sequence[Resident], victims: Sequence[Resident]) -> str:
        """Return a device that has too little memory, "" if there is none."""
        return self._short_by(load, victims, reported=False) or self._short_by(load, victims, reported=True)

    def _short_by(self, load: Sequence[Resident], victims: Sequence[Resident], *, reported: bool) -> str:
        devices = sorted({device for pool in load for device in pool.need})
        needs = {device: sum(pool.need.get(device, 0) for pool in load) for device in devices}
        machine = load[0].machine
        short = (each for each in devices if needs[each] > self._room(machine, each, victims, reported=reported))
        return next(short, "")

    def _lags(self, load: Sequence[Resident], victims: Sequence[Resident]) -> bool:
        """Whether only the reported free memory is short, and it may not show the last unload yet."""
        settled_at = self._situation.settled_at.get(load[0].machine, -inf)
        return self._now < settled_at + self._rules.settle_s and not self._short_by(load, victims, reported=False)

    def _alone(self, load: Sequence[Resident], victims: Sequence[Resident]) -> bool:
        """Whether nothing of ours remains beside `load` on its devices: then it is tried, whatever the estimate."""
        devices = {device for pool in load for device in pool.need}
        others = (each for each in self._all.values() if each.machine == load[0].machine and each.in_memory)
        return not any(devices & each.need.keys() for each in others if each not in victims)


LAGGING = "the machine has not reported its free memory since the last unload"


def _holds(pool: Resident) -> str:
    if pool.pinned:
        return f"pool {pool.key[0]} is pinned"
    return f"pool {pool.key[0]} is in use" if pool.leases else f"pool {pool.key[0]} was loaded only just now"


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
