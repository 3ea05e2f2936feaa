"""python -m tests.bench.kills [--release bookworm] [--kills 100] [--seed 1] [--victim V]...: run the campaign."""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.kills import phases
from tests.bench.kills.invariants import damaged, unsettled
from tests.bench.kills.phases import PHASES, can_reload
from tests.bench.kills.site import POOLS, Site, site
from tests.bench.kills.victims import BOXED, VICTIMS
from tests.system.lab.package import built_deb
from tests.system.lab.rootfs import SUITES

SETTLE_S = 90.0
MOMENT_S = 1.0
POLL_S = 0.5
CONFIGURED = frozenset(POOLS)


@dataclass
class Campaign:
    """Kills `victims`. `killed` counts by victim and phase, `missed` those for which there was no such process."""

    victims: list[str]
    killed: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    settled_s: list[float] = field(default_factory=list)

    def strike(self, running: Site, choice: random.Random, reloads: bool) -> None:
        """Kill a random victim in a random phase, and check what is left."""
        victim = choice.choices(self.victims, [VICTIMS[name][2] for name in self.victims])[0]
        kill, possible, _share = VICTIMS[victim]
        phase = choice.choice([name for name in possible if reloads or name != "reloading"])
        number, moment_s = choice.randrange(1 << 16), choice.uniform(0, MOMENT_S)
        PHASES[phase](running, number, victim in BOXED)
        time.sleep(moment_s)
        hit = kill(running, choice)
        (self.killed if hit else self.missed)[victim, phase] += 1
        struck = time.monotonic()
        phases.end(running)
        with running.clients.interrupted():
            problems = self._settle(running)
        took_s = time.monotonic() - struck
        self.settled_s.append(took_s)
        what = f"{sum(self.killed.values())}: {victim} while {phase}{'' if hit else ' (nothing to kill)'}"
        print(
            f"{what}: settled after {took_s:.1f} s" + "".join(f"\n  VIOLATION {each}" for each in problems), flush=True
        )
        if problems:
            self.violations += [f"{what}: {each}" for each in problems]
            print(running.machine.recent(), file=sys.stderr, flush=True)

    def _settle(self, running: Site) -> list[str]:
        """Wait until everything holds that must hold; return what does not after SETTLE_S."""
        deadline = time.monotonic() + SETTLE_S
        while problems := self._wrong(running):
            if time.monotonic() > deadline:
                return problems
            self._hasten(running)
            time.sleep(POLL_S)
        return []

    def _wrong(self, running: Site) -> list[str]:
        pools = running.pools()
        found = [*unsettled(running.observe(), pools, CONFIGURED), *running.clients.unfinished()]
        return found or list(damaged(running.observe("files"), {}))

    def _hasten(self, running: Site) -> None:
        """Have failed pools tried again at once, as an operator would, if tasks wait for them."""
        for pool in running.pools():
            if pool["state"] == "failed" and running.clients.accepted:
                running.machine.queen.post(f"/v2/pools/{pool['pool_id']}/preload", None)

    def report(self, suite: str, seed: int, running: Site) -> str:
        """Return the figures as text."""
        settled = sorted(self.settled_s) or [0.0]
        lines = [
            f"{suite}, seed {seed}: {sum(self.killed.values())} kills, {len(self.violations)} violations",
            f"settled after {settled[len(settled) // 2]:.1f} s (median), {settled[-1]:.1f} s (longest)",
            *(f"  {victim} while {phase}: {count}" for (victim, phase), count in sorted(self.killed.items())),
            f"nothing to kill: {sum(self.missed.values())}",
            f"tasks ended: {dict(running.clients.ends)}; not accepted: {dict(running.clients.refused)}",
            *(f"VIOLATION {each}" for each in self.violations),
        ]
        return "\n".join(lines)


def main() -> int:
    """Run the campaign; return 1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.kills", description=__doc__)
    parser.add_argument("--release", choices=SUITES, default=SUITES[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--victim", choices=VICTIMS, action="append", help="kill only these (default: all)")
    options = parser.parse_args()
    choice, campaign = random.Random(options.seed), Campaign(options.victim or list(VICTIMS))
    with (
        tempfile.TemporaryDirectory() as hub_root,
        site(options.release, built_deb(), Path(hub_root), options.seed) as running,
    ):
        reloads = can_reload(running)
        try:
            while sum(campaign.killed.values()) < options.kills:
                campaign.strike(running, choice, reloads)
        finally:  # also when somebody ends it early
            print(campaign.report(options.release, options.seed, running))
    return 1 if campaign.violations else 0


if __name__ == "__main__":
    sys.exit(main())
