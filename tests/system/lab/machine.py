"""A machine with llama-orch, operated with apt, systemctl, journalctl and a pools file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tests.engines.llama_server import Archive
from tests.system.lab.client import POOL_MANAGER, QUEEN, Client
from tests.system.lab.container import Container
from tests.system.lab.waiting import until

DAEMONS = ("queen-rbee", "pool-managerd", "engine-provisioner")
TARGET = "llama-orch.target"
POOLS_FILE = "/etc/llama-orch/pools.toml"
PROVISIONER_ENV = "/etc/llama-orch/engine-provisioner.env"
ENGINE_ARCHIVE = "/srv/llama-server.tar.gz"
READY_WITHIN_S = 60.0


@dataclass(frozen=True)
class Pool:
    """A pool in the pools file. `model` is a path in the machine, `checksum` its expected SHA-256, and `extra`
    additional lines of the table."""

    id: str
    model: str
    checksum: str | None = None
    extra: str = ""


@dataclass(frozen=True)
class Machine:
    """A booted machine. `token` is the token that its daemons require."""

    container: Container
    token: str | None = None

    @property
    def queen(self) -> Client:
        """A client of queen-rbee."""
        return Client(self.container, QUEEN, token=self.token)

    @property
    def pool_manager(self) -> Client:
        """A client of pool-managerd."""
        return Client(self.container, POOL_MANAGER, token=self.token)

    def install(self, deb: Path) -> str:
        """Install the package with apt, without a network, and return the output. Raises CommandFailed."""
        self.container.write(f"/root/{deb.name}", deb.read_bytes())
        return self.container.check("sh", "-c", f"cd /root && apt-get install -y -o Dpkg::Use-Pty=0 ./{deb.name} 2>&1")

    def place(self, archive: Archive, models: dict[str, Path]) -> None:
        """Copy the engine's archive and models (by their path in the machine) to the machine."""
        self.container.write(ENGINE_ARCHIVE, archive.path.read_bytes())
        for inside, model in models.items():
            self.container.write(inside, model.read_bytes())

    def configure(self, archive: Archive, *pools: Pool) -> None:
        """Write the pools file, and select the CPU."""
        self.container.write(POOLS_FILE, "\n".join(_table(pool, archive.checksum) for pool in pools))
        self.set_variable(PROVISIONER_ENV, "ENGINE_PROVISIONER_GPU_MASK", "cpu")

    def set_variable(self, file: str, name: str, value: str) -> None:
        """Set a variable in an environment file, and remove earlier assignments."""
        path = self.container.path(file)
        others = [line for line in path.read_text().splitlines() if not line.startswith(f"{name}=")]
        path.write_text("\n".join([*others, f"{name}={value}", ""]))

    def systemctl(self, *words: str) -> str:
        """Run systemctl and return its output. Raises CommandFailed."""
        return self.container.check("systemctl", *words)

    def restart_sockets(self, command: str) -> None:
        """Run a shell command that restarts sockets. Raises CommandFailed."""
        self.container.check("sh", "-c", command)

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).strip()

    def drop_in(self, unit: str, text: str) -> None:
        """Add a drop-in to a unit. `systemctl revert` removes it."""
        self.container.write(f"/run/systemd/system/{unit}.d/test.conf", text)
        self.systemctl("daemon-reload")

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return journal entries for `matches` (FIELD=value, or options of journalctl), oldest first."""
        lines = self.container.check("journalctl", "--output=json", "--no-pager", "--all", *matches).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def messages(self, *matches: str) -> str:
        """Return the messages of those entries, one on each line."""
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.journal(*matches))

    def pool(self, pool_id: str) -> dict[str, Any]:
        """Return pool-managerd's status of the pool, or {} if it does not know the pool."""
        return _pool(self.pool_manager, pool_id)

    def wait_until_served(self, pool_id: str) -> None:
        """Wait until queen-rbee can place tasks on the pool. Raises TimeoutError with its status."""
        until(
            lambda: _pool(self.queen, pool_id).get("ready"),
            f"pool {pool_id} to be ready",
            READY_WITHIN_S,
            lambda: f"{self.pool(pool_id)}\n{self.recent()}",
        )

    def recent(self) -> str:
        """Return the last lines of the journal, for error messages."""
        return self.container.run("journalctl", "--no-pager", "--lines=40", "--output=short-precise").stdout


def _pool(client: Client, pool_id: str) -> dict[str, Any]:
    try:
        answer = client.get("/v2/pools")
    except (OSError, HTTPException):
        return {}
    pools = answer.json["pools"] if answer.status == 200 else []
    return next((pool for pool in pools if pool["pool_id"] == pool_id), {})


def _table(pool: Pool, checksum: str) -> str:
    expected = f', checksum = "sha256:{pool.checksum}"' if pool.checksum else ""
    return f"""\
[[pools]]
id = "{pool.id}"
engine = "llamacpp"
model = {{ ref = "file:{pool.model}"{expected} }}
ctx = 512
slots = 2
{pool.extra}
[pools.provisioning]
mode = "binary"
url = "file:{ENGINE_ARCHIVE}"
checksum = "{checksum}"
allow_binary_downloads = true
"""


def changed_from(before: str, look: Callable[[], str]) -> Callable[[], str | None]:
    """Return a condition for `until`: the result of `look` once it is neither "", "0" nor `before`."""
    return lambda: value if (value := look()) not in ("", "0", before) else None
