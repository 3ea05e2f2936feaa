"""The machine of a campaign: its pools, an imitation of the hub beside it, its clients, and its power switch."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tests.bench.kills.clients import Clients
from tests.engines.llama_server import llama_server_archive
from tests.engines.tiny_model import Shape, tiny_model
from tests.system.lab import images
from tests.system.lab.container import Container, booted, booted_again
from tests.system.lab.inside import served_inside
from tests.system.lab.machine import ENGINE_ARCHIVE, POOLS_FILE, PROVISIONER_ENV, TARGET, Machine
from tests.system.lab.rootfs import BUILD_TOOLS, PODMAN
from tests.system.lab.waiting import until

HUB_PORT = 8089
RATE = 250_000
"""Bytes/s of a download: a model of 0.8 MB takes 3 s."""
OBSERVER = "/srv/observe.py"
SOCKET = "/run/llama-orch/engine-provisioner.sock"
PULLED = tuple(f"hf:org/pulled{number}:Q4_0" for number in range(3))

POOL = """\
[[pools]]
id = "{id}"
model = "{model}"
ctx = 512
slots = 2
flags = ["--threads", "1", "--threads-batch", "1"]
{keys}
[pools.provisioning]
{provisioning}
"""
BINARY = 'mode = "binary"\nurl = "file:{archive}"\nchecksum = "{checksum}"\nallow_binary_downloads = true'
CONTAINER = f'mode = "container"\nimage = "{images.IMAGE}"\ntag = "{images.TAG}"'
ON_DEMAND = 'preload = false\nkeep_alive = "4s"'
PAIR = 'group = "pair"'
GROUP = '[groups.pair]\nmode = "exclusive"\n'

POOLS = {
    "kept": ("file:/srv/kept.gguf", "pinned = true"),
    "left": ("file:/srv/left.gguf", f"{ON_DEMAND}\n{PAIR}"),
    "right": ("hf:org/right:Q4_0", f"{ON_DEMAND}\n{PAIR}"),
    "boxed": ("file:/srv/boxed.gguf", ON_DEMAND),
}
"""The model and the keys of each pool. `left` and `right` evict each other, `boxed` runs in a container."""
MODELS = {"kept": "kept", "left": "left", "right": "hf:org/right:Q4_0", "boxed": "boxed"}
"""The name by which clients request the model of each pool."""


def seeded(number: int) -> Path:
    """Return a small model that differs from the others."""
    return tiny_model(Shape(seed=5000 + number))


@dataclass
class Site:
    """The running machine. `reboots` closes the last boot, if it was not the first."""

    container: Container
    hub_root: Path
    clients: Clients
    reboots: ExitStack = field(default_factory=ExitStack)

    @property
    def machine(self) -> Machine:
        return Machine(self.container)

    def observe(self, *what: str) -> dict[str, Any]:
        """Return what runs in the machine and, with "files", what lies in its cache."""
        found: dict[str, Any] = json.loads(self.container.check("python3", OBSERVER, *what))
        return found

    def pools(self) -> list[dict[str, Any]]:
        """Return the pools as the queen reports them; none while it does not answer."""
        try:
            answer = self.machine.queen.get("/v2/pools")
            return list(answer.json["pools"]) if answer.status == 200 else []
        except (OSError, HTTPException):
            return []

    def state(self, pool_id: str) -> str:
        """Return the state of a pool, "" if it is not known."""
        return next((str(pool["state"]) for pool in self.pools() if pool["pool_id"] == pool_id), "")

    def provisioner(self, method: str, path: str, body: object = None) -> str:
        """Send a request to engine-provisioner; return the body of the answer, or "" without one."""
        words = ["curl", "-s", "-m", "10", "--unix-socket", SOCKET, "-X", method, f"http://localhost{path}"]
        words += ["-H", "content-type: application/json", "-d", json.dumps(body)] if body is not None else []
        return self.container.run(*words).stdout

    def cut_power(self) -> None:
        """Kill everything in the machine at once, and boot it again."""
        with self.clients.interrupted():
            self.container.power_off()
            self.reboots.close()
            self.container = self.reboots.enter_context(booted_again(self.container))
            self._start_hub()
        self.clients.container = self.container

    def _start_hub(self) -> None:
        arguments = (str(self.hub_root), str(RATE), str(HUB_PORT))
        self.reboots.enter_context(served_inside(self.container, "tests.imitations.hub", *arguments))


@contextmanager
def site(suite: str, deb: Path, hub_root: Path, seed: int) -> Iterator[Site]:
    """Boot a machine of `suite` with the package of `deb` and serve all pools, for the duration of the block."""
    with booted(suite, "kills", packages=BUILD_TOOLS + PODMAN) as container, ExitStack() as stack:
        machine = Machine(container)
        machine.install(deb)
        images.prepare(container)
        images.import_image(container)
        archive = llama_server_archive()
        machine.place(archive, {f"/srv/{name}.gguf": seeded(n) for n, name in enumerate(("kept", "left", "boxed"))})
        for number, name in enumerate(("right", "pulled0", "pulled1", "pulled2"), 10):
            (repository := hub_root / "org" / name).mkdir(parents=True)
            (repository / f"{name}-Q4_0.gguf").write_bytes(seeded(number).read_bytes())
        binary = BINARY.format(archive=ENGINE_ARCHIVE, checksum=archive.checksum)
        tables = (
            POOL.format(id=name, model=model, keys=keys, provisioning=CONTAINER if name == "boxed" else binary)
            for name, (model, keys) in POOLS.items()
        )
        container.write(POOLS_FILE, "\n".join([*tables, GROUP]))
        container.write(OBSERVER, Path(__file__).with_name("observe.py").read_bytes())
        machine.set_variable(PROVISIONER_ENV, "ENGINE_PROVISIONER_GPU_MASK", "cpu")
        machine.set_variable(PROVISIONER_ENV, "HF_ENDPOINT", f"http://127.0.0.1:{HUB_PORT}")
        clients = Clients(container, sorted(MODELS.values()), seed)
        running = Site(container, hub_root, clients)
        stack.enter_context(running.reboots)
        running._start_hub()
        machine.systemctl("enable", "--now", TARGET)
        until(
            lambda: {pool["state"] for pool in running.pools()} == {"ready", "unloaded"} and len(running.pools()) == 4,
            "the pools to be prepared",
            90,
            lambda: f"{running.pools()}\n{machine.recent()}",
        )
        with clients.asking():
            yield running
