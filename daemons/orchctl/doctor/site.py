"""What several checks of `orchctl doctor` need to know of this machine: units, settings, and the configured pools."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import trio

from llama_orch.contracts.pool_files import ConfiguredPool, ConfiguredPools
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.declared import DECLARED
from orchctl.child import output_of
from orchctl.client import QueenClient, parse_response
from orchctl.config.sources import assignments_of
from orchctl.config.units import unit_sources
from orchctl.errors import CommandError
from orchctl.locations import UNIX
from orchctl.nurseries import unwrap_groups
from orchctl.provisioner import NAME, find_socket

LIMIT_S = 5.0
"""How long one observation may take."""
DAEMONS = tuple(f"{daemon}.service" for daemon in DECLARED)
TARGET, SLICE = "llama-orch.target", "llama-engines.slice"
ENGINES = ("llama-engine@*.service", "llama-engine-container@*.service")
PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "MainPID", "NRestarts"),
    *("MemoryCurrent", "MemoryMax", "MemoryHigh", "TasksCurrent", "TasksMax"),
)
ABSENT = CommandError("engine-provisioner does not run on this machine", "", ExitStatus.UNAVAILABLE)


@dataclass(frozen=True)
class Unknown:
    """A check that could not be made, and what would make it possible."""

    reason: str
    mend: str = ""


@dataclass(frozen=True)
class Unit:
    """A unit's properties, as systemctl shows them."""

    name: str
    properties: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.properties.get(name, "")

    @property
    def loaded(self) -> bool:
        return self["LoadState"] == "loaded"

    @property
    def active(self) -> bool:
        return self["ActiveState"] in ("active", "reloading")

    def number(self, name: str) -> int | None:
        """Return a number; None if it is not set, or unlimited."""
        text = self[name]
        return int(text) if text.isdigit() and int(text) < 1 << 63 else None


@dataclass(frozen=True)
class Site:
    """This machine. `units` are those that systemd knows; `variables` are the environments of the daemons by name.

    `pools` are those of the local engine-provisioner, or why they are not known.
    """

    units: Mapping[str, Unit] = field(default_factory=dict)
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pools: Sequence[ConfiguredPool] | CommandError = ABSENT
    root: bool = False

    def unit(self, name: str) -> Unit:
        return self.units.get(name, Unit(name))

    def installed(self, daemon: str) -> bool:
        return self.unit(f"{daemon}.service").loaded


async def find_site() -> Site:
    """Observe the site. What takes too long is missing in it."""
    units: dict[str, Unit] = {}
    variables: dict[str, Mapping[str, str]] = {}
    pools: list[Sequence[ConfiguredPool] | CommandError] = [ABSENT]

    async def find_units() -> None:
        units.update(await _units())

    async def find_variables(daemon: str) -> None:
        with trio.move_on_after(LIMIT_S):
            assigned = assignments_of(await unit_sources(daemon, os.environ))
            variables[daemon] = {name: each.value for name, each in assigned.items()}

    async def find_pools() -> None:
        pools[0] = await _configured_pools()

    with unwrap_groups():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(find_units)
            nursery.start_soon(find_pools)
            for daemon in DECLARED:
                nursery.start_soon(find_variables, daemon)
    return Site(units, variables, pools[0], os.geteuid() == 0)


async def _units() -> dict[str, Unit]:
    names = (*DAEMONS, TARGET, SLICE, *ENGINES)
    shown = await output_of("systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *names)
    return parse_units(shown.out if shown.ok else "")


def parse_units(text: str) -> dict[str, Unit]:
    """Return the units in the output of `systemctl show`, whose blocks are separated by empty lines."""
    found = {}
    for block in text.split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if name := properties.get("Id"):
            found[name] = Unit(name, properties)
    return found


async def _configured_pools() -> Sequence[ConfiguredPool] | CommandError:
    path = find_socket()
    if path is None:
        return ABSENT
    if not os.access(path, os.W_OK):
        return CommandError(f"no permission to use {path}", "Run: sudo orchctl doctor", ExitStatus.NO_PERMISSION)
    try:
        with trio.fail_after(LIMIT_S):
            client = QueenClient(f"{UNIX}{path}", daemon=NAME)
            return parse_response(ConfiguredPools, await client.get("/v2/pools")).pools
    except trio.TooSlowError:
        return CommandError(f"no answer on {path} within {LIMIT_S:g} s", "", ExitStatus.UNAVAILABLE)
    except CommandError as error:
        return error
