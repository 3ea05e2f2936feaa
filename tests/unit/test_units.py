"""units/ and packaging/ match the code: variables, addresses, names, the example pools file."""

import importlib.util
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from engine_provisioner.spec import pools_file
from llama_orch.contracts.base import POOL_ID_PATTERN
from llama_orch.settings.loading import Settings
from pool_managerd.power.power import REQUEST
from pool_managerd.settings import PoolManagerSettings
from queen_rbee.settings import QueenSettings
from tests.unit.reference.parsing import SetUp, set_ups
from tools.generate import DAEMONS

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "units"


def directives(unit: str, name: str) -> list[str]:
    """The values of the directive `name` in a unit file, in order."""
    return re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


@pytest.mark.parametrize(("daemon", "settings"), DAEMONS.items())
def test_unit_sets_packaged_values_without_environment_file(daemon: str, settings: type[Settings]) -> None:
    packaged = {var.env: var.packaged for var in settings.variables().values() if var.packaged}
    given = dict(line.split("=", 1) for line in directives(f"{daemon}.service", "Environment"))
    assert {name: value for name, value in given.items() if not name.startswith("MALLOC_")} == packaged


@pytest.mark.parametrize(("daemon", "settings"), DAEMONS.items())
def test_packaged_values_are_valid(daemon: str, settings: type[Settings]) -> None:
    settings.load(dict(line.split("=", 1) for line in directives(f"{daemon}.service", "Environment")))


@pytest.mark.parametrize(("daemon", "settings"), DAEMONS.items())
def test_unit_passes_tokens_as_optional_credentials(daemon: str, settings: type[Settings]) -> None:
    credentials = {var.credential for var in settings.variables().values() if var.credential}
    loaded = directives(f"{daemon}.service", "LoadCredential")
    assert loaded == [f"{name}:/etc/llama-orch/{name}" for name in sorted(credentials)]
    assert directives(f"{daemon}.service", "SetCredential") == [f"{name}:\\n" for name in sorted(credentials)]


@pytest.mark.parametrize("set_up", set_ups(), ids=lambda each: f"{each.daemon}, {each.title}")
def test_unit_may_use_directories_of_reference_examples(set_up: SetUp) -> None:
    unit = f"{set_up.daemon}.service"
    writable = {path.removeprefix("-") for line in directives(unit, "ReadWritePaths") for path in line.split()}
    caches = {f"/var/cache/{name}" for name in directives(unit, "CacheDirectory")}
    named = {resolved(unit, value) for name, value in set_up.values.items() if name.endswith("_DIR")}
    assert named <= set(tmpfiles("d")) | caches
    assert named <= writable | caches or set_up.daemon == "queen-rbee", "queen-rbee only reads this directory"


def tmpfiles(kind: str) -> dict[str, str]:
    """The paths of this type that systemd-tmpfiles creates, each with its argument."""
    lines = [line.split() for line in (ROOT / "tmpfiles.d/llama-orch.conf").read_text().splitlines()]
    return {line[1]: line[-1] for line in lines if line[0] == kind}


def resolved(unit: str, path: str) -> str:
    """Resolve a path from an environment file as the unit does: relative to its working directory, with our links."""
    [directory] = directives(unit, "WorkingDirectory")
    whole = f"{directory.removeprefix('-')}/{path}" if not path.startswith("/") else path
    for link, target in tmpfiles("L").items():
        if whole.startswith(f"{link}/"):
            return target + whole.removeprefix(link)
    return whole


def test_path_units_watch_every_packaged_handoff_directory() -> None:
    spools = {path for path in tmpfiles("d") if path.endswith("/engines")}
    assert len(spools) == 2
    for unit in ("pool-managerd-handoff.path", "queen-rbee-handoff.path"):
        assert set(directives(unit, "PathChanged")) == spools


def test_sockets_listen_where_daemons_expect() -> None:
    queen, pools = QueenSettings.load({}), directives("pool-managerd.service", "Environment")
    pool = PoolManagerSettings.load(dict(line.split("=", 1) for line in pools))
    assert directives("queen-rbee.socket", "ListenStream") == [str(queen.address)]
    assert directives("queen-rbee-metrics.socket", "ListenStream") == [f"127.0.0.1:{queen.metrics_port}"]
    assert directives("pool-managerd.socket", "ListenStream") == [str(pool.bind)]
    assert directives("pool-managerd-metrics.socket", "ListenStream") == [f"127.0.0.1:{pool.metrics_port}"]


@pytest.mark.parametrize("daemon", DAEMONS)
def test_daemon_gets_all_its_sockets(daemon: str) -> None:
    own = {path.name for path in UNITS.glob("*.socket") if directives(path.name, "Service") == [f"{daemon}.service"]}
    assert set(directives(f"{daemon}.service", "Sockets")[0].split()) == own
    assert set(directives(f"{daemon}.service", "Also")[0].split()) >= own


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.service")))
def test_program_of_unit_exists(unit: str) -> None:
    [command] = directives(unit, "ExecStart")
    if command.startswith("systemctl "):
        return
    if module := re.search(r" -m (\S+)", command):
        assert importlib.util.find_spec(module[1]), command
    else:
        assert "/usr/lib/llama-orch/wake.py /run/llama-orch/" in command


def test_preset_enables_exactly_the_installable_units() -> None:
    preset = (UNITS / "90-llama-orch.preset").read_text()
    enabled = re.findall(r"^enable (\S+)$", preset, re.MULTILINE)
    units = {path.name for path in UNITS.iterdir() if "." in path.name and path.suffix != ".preset"}
    installable = {name for name in units if directives(name, "WantedBy")}
    opt_in = set(re.findall(r"^disable (\S+)$", preset, re.MULTILINE))
    assert opt_in == {"llama-orch-suspend.path"}
    assert {name for name in units if any(fnmatchcase(name, pattern) for pattern in enabled)} == installable - opt_in


def test_suspension_is_opt_in_also_in_the_package() -> None:
    rules = (ROOT / "packaging/debian/rules").read_text()
    assert re.search(r"^opt_in +:= llama-orch-suspend$", rules, re.MULTILINE)
    assert "in $(opt_in)) enable=--no-enable" in rules


def test_request_of_pool_managerd_is_watched_and_removed() -> None:
    [runtime] = directives("pool-managerd.service", "RuntimeDirectory")
    request = f"/run/{runtime}/{REQUEST}"
    assert directives("llama-orch-suspend.path", "PathExists") == [request]
    assert directives("llama-orch-suspend.service", "ExecStartPre") == [f"rm -f {request}"]


def test_suspension_respects_users_and_inhibitors() -> None:
    command = ["systemctl suspend --check-inhibitors=yes"]
    assert directives("llama-orch-suspend.service", "ExecStart") == command


def test_units_of_target_stop_with_it() -> None:
    for path in UNITS.iterdir():
        if path.suffix in (".service", ".path") and directives(path.name, "WantedBy"):
            assert "llama-orch.target" in directives(path.name, "PartOf")[0].split(), path.name


def test_ports_can_be_bound_while_a_forked_child_holds_them() -> None:
    """systemd closes and binds a port within 0.3 ms; the kernel allows two listeners only if both have SO_REUSEPORT."""
    for path in UNITS.glob("*.socket"):
        on_tcp = not directives(path.name, "ListenStream")[0].startswith("/")
        assert directives(path.name, "ReusePort") == ["yes"] * on_tcp, path.name


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.socket")))
def test_socket_stays_open_while_target_restarts(unit: str) -> None:
    for name in ("PartOf", "StopPropagatedFrom", "BindsTo", "Requires"):
        assert directives(unit, name) == [], "systemd propagates restarts along it"
    assert directives(unit, "StopWhenUnneeded") == ["yes"]
    assert directives(unit, "WantedBy") == ["llama-orch.target"]


def test_polkit_allows_only_engine_units_and_used_verbs() -> None:
    rules = (ROOT / "packaging/polkit/50-llama-orch.rules").read_text()
    [allowed] = re.findall(r"/\^llama-engine\(-container\|-image\)\?@(.*)\\\.service\$/", rules)
    assert allowed == POOL_ID_PATTERN.removeprefix("^").removesuffix("$")
    assert '["start", "stop", "restart"]' in rules


def test_example_pools_file_is_valid_also_when_uncommented() -> None:
    path = ROOT / "packaging/examples/pools.toml"
    text = path.read_text()
    assert [pool.id for pool in pools_file.parse(text.encode(), path)] == ["default"]
    uncommented = re.sub(r"^# ?(?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE).replace("...", "0" * 64)
    assert len(pools_file.parse(uncommented.encode(), path)) == 5
