"""Ports of the daemons: whether they are served, and by whom."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llama_orch.packages import Tool, install_command
from orchctl.check.findings import Finding, ok, problem, warning
from orchctl.child import output_of
from orchctl.doctor.site import Site, Unknown

SS = Tool("ss", apt="iproute2", dnf="iproute")
SYSTEMD = 1
LINE = re.compile(r"\S+\s+\d+\s+\d+\s+\S*:(\d+)\s+\S+\s*(.*)")
USER = re.compile(r'\("([^"]*)",pid=(\d+)')


@dataclass(frozen=True)
class Port:
    """A TCP port of a daemon, the variable that sets it, and the daemon's unit and process (0 if it does not run)."""

    number: int
    daemon: str
    variable: str
    active: bool
    pid: int = 0


@dataclass(frozen=True)
class Ports:
    """The daemons' ports, and the programs with their process ids that listen on each port of this machine.

    A port whose program this user cannot see has an empty list.
    """

    ports: Sequence[Port]
    listeners: Mapping[int, Sequence[tuple[str, int]]] = field(default_factory=dict)


async def observe_ports(site: Site) -> Ports | Unknown:
    shown = await output_of("ss", "--no-header", "-ltnp")
    if shown.status is None:
        return Unknown(shown.problem, install_command([SS]))
    return Ports(ports_of(site), parse_listeners(shown.out))


def parse_listeners(text: str) -> dict[int, list[tuple[str, int]]]:
    """Return programs by port from the output of ss(8)."""
    found: dict[int, list[tuple[str, int]]] = {}
    for line in text.splitlines():
        if match := LINE.match(line):
            found.setdefault(int(match[1]), []).extend((name, int(pid)) for name, pid in USER.findall(match[2]))
    return found


def ports_of(site: Site) -> list[Port]:
    """Return the ports of the daemons that are installed here."""
    declared = (
        ("queen-rbee", "ORCHESTRATORD_BIND_ADDR", 8080),
        ("queen-rbee", "PROMETHEUS_METRICS_PORT", 9090),
        ("pool-managerd", "POOL_MANAGERD_BIND_ADDR", 9200),
        ("pool-managerd", "PROMETHEUS_METRICS_PORT", 9091),
    )
    ports = []
    for daemon, variable, default in declared:
        unit, values = site.unit(f"{daemon}.service"), site.variables.get(daemon, {})
        value = values.get(variable) or (values.get("ORCHD_ADDR") if variable == "ORCHESTRATORD_BIND_ADDR" else None)
        match = re.search(r"(\d{1,5})$", value or "")
        if unit.loaded:
            number = int(match[1]) if match else default
            ports.append(Port(number, daemon, variable, unit.active, unit.number("MainPID") or 0))
    return ports


def port_findings(observed: Ports) -> Iterator[Finding]:
    for port in observed.ports:
        users = observed.listeners.get(port.number)
        subject = f"port {port.number} of {port.daemon}"
        if users is None and port.active:
            units = f"{port.daemon}.socket {port.daemon}-metrics.socket {port.daemon}.service"
            yield problem("ports", f"nothing listens on {subject}", f"systemctl restart {units}")
        elif users and not any(pid in (SYSTEMD, port.pid) for _name, pid in users):
            others = ", ".join(f"{name} (pid {pid})" for name, pid in users)
            mend = f"Stop that program, or set {port.variable} in /etc/llama-orch/{port.daemon}.env to another port."
            yield problem("ports", f"{subject} is used by {others}", mend)
        elif users is not None and not users and not port.active:
            yield warning("ports", f"{subject} is in use", f"sudo ss -ltnp 'sport = :{port.number}' shows by whom.")
        elif users is not None:
            yield ok("ports", f"{subject} is served")
