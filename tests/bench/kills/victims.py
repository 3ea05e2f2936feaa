"""What is killed, by SIGKILL."""

import random
import time
from collections.abc import Callable

from tests.bench.kills.site import Site

Kill = Callable[[Site, random.Random], bool]
"""Kills, and returns whether there was something to kill."""


WAIT_S = 6
"""How long a victim may take to appear, in seconds."""
POLL_S = 0.1


def daemon(name: str) -> Kill:
    """Return the kill of a daemon's main process."""

    def kill(site: Site, _random: random.Random) -> bool:
        pid = site.machine.show(f"{name}.service", "MainPID")
        return pid != "0" and site.container.run("kill", "-9", pid).status == 0

    return kill


def process(kind: str, *, boxed: bool) -> Kill:
    """Return the kill of a random `engine`, or of a container's (`boxed`) engine or `conmon`."""

    def kill(site: Site, choice: random.Random) -> bool:
        give_up_at = time.monotonic() + WAIT_S
        while True:
            found = [
                each["pid"]
                for each in site.observe()["processes"]
                if each["kind"] == kind and boxed == ("container" in (each["unit"] or ""))
            ]
            if found or time.monotonic() > give_up_at:
                return bool(found) and site.container.run("kill", "-9", str(choice.choice(found))).status == 0
            time.sleep(POLL_S)

    return kill


def podman(site: Site, _random: random.Random) -> bool:
    """Kill the next podman that runs within WAIT_S: one lives for less than a second."""
    script = f"for try in $(seq {WAIT_S * 20}); do pkill -9 -x podman && exit 0; sleep 0.05; done; exit 1"
    return site.container.run("sh", "-c", script).status == 0


def machine(site: Site, _random: random.Random) -> bool:
    """Cut the power."""
    site.cut_power()
    return True


VICTIMS: dict[str, tuple[Kill, tuple[str, ...], int]] = {
    "engine-provisioner": (
        daemon("engine-provisioner"),
        ("provisioning", "loading", "serving", "draining", "evicting", "reloading"),
        24,
    ),
    "download": (daemon("engine-provisioner"), ("downloading", "provisioning"), 14),
    "pool-managerd": (daemon("pool-managerd"), ("loading", "serving", "draining", "evicting", "reloading"), 18),
    "queen-rbee": (daemon("queen-rbee"), ("loading", "serving", "draining", "evicting", "reloading"), 18),
    "engine": (process("engine", boxed=False), ("loading", "serving", "draining", "evicting", "reloading"), 14),
    "container's engine": (process("engine", boxed=True), ("loading", "serving"), 4),
    "conmon": (process("conmon", boxed=True), ("loading", "serving"), 3),
    "podman": (podman, ("loading",), 2),
    "machine": (machine, ("provisioning", "downloading", "loading", "serving", "evicting"), 6),
}
"""How each victim is killed, the phases in which it is, and its share of all kills."""
BOXED = ("container's engine", "conmon", "podman")
"""Victims that belong to the pool in a container."""
