"""The manual pages match the code: variables, options, endpoints, metrics, keys, events."""

import argparse
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import llama_orch.service.run as daemon_process
from engine_provisioner.__main__ import DAEMON as PROVISIONER
from engine_provisioner.api.routes import ROUTES as PROVISIONER_ROUTES
from engine_provisioner.modes.registry import MODES, mode_names
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.spec import pools_file
from engine_provisioner.spec.pool_spec import OWNED_FLAGS, Group, Model, Pool, Timeouts
from llama_orch.contracts.handoff import Handoff, HandoffModel
from llama_orch.contracts.keys import KeyEndpoint, KeySpec
from llama_orch.contracts.pools import ProvisioningReport
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.http.server.routes import Route
from llama_orch.keys import keys_file
from llama_orch.service.exit import ExitStatus
from llama_orch.service.run import Daemon
from llama_orch.settings.environment_file import parse
from llama_orch.telemetry.events.catalog import CATALOG
from orchctl.command import COMMON_ARGUMENTS, CliCommand
from orchctl.parser import COMMANDS, build_parser
from pool_managerd.__main__ import DAEMON as POOL_MANAGER
from pool_managerd.api.routes import ROUTES as POOL_MANAGER_ROUTES
from pool_managerd.metrics import Metrics as PoolManagerMetrics
from pool_managerd.pools.node_pools import NodePools
from queen_rbee.__main__ import DAEMON as QUEEN
from queen_rbee.api.routes import ROUTES as QUEEN_ROUTES
from queen_rbee.metrics import Metrics as QueenMetrics
from tests.engines.fixtures import skip_or_fail
from tests.unit.manual_page import Page, plain
from tools.generating.documents import default_text

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "man").glob("*.[1-8]"))
DAEMONS: tuple[Daemon[Any], ...] = (QUEEN, POOL_MANAGER, PROVISIONER)
EVERY_DAEMON = pytest.mark.parametrize("daemon", DAEMONS, ids=lambda daemon: daemon.name)
EVERY_PAGE = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
ROUTES: dict[str, list[Route]] = {
    "queen-rbee": QUEEN_ROUTES,
    "pool-managerd": POOL_MANAGER_ROUTES,
    "engine-provisioner": PROVISIONER_ROUTES,
}


def page(name: str) -> Page:
    return Page(ROOT / "man" / name)


def daemon_page(daemon: Daemon[Any]) -> Page:
    return page(f"{daemon.name}.8")


def package(daemon: Daemon[Any]) -> Path:
    return ROOT / "daemons" / daemon.name.replace("-", "_")


@EVERY_PAGE
def test_page_header_names_this_release(path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    name, section = path.name.rsplit(".", 1)
    head = Page(path).lines[0]
    assert re.fullmatch(rf'\.TH {name} {section} "\d{{4}}-\d\d-\d\d" "llama-orch {version}" "llama-orch"', head)


@EVERY_PAGE
def test_apropos_finds_page_by_suite_name(path: Path) -> None:
    lines = Page(path).lines
    name_line = plain(lines[lines.index(".SH NAME") + 1])
    assert name_line.startswith(f"{path.stem} - ")
    assert "llama" in name_line, "man -k llama shows it"
    if shutil.which("lexgrog") is None:
        skip_or_fail("lexgrog is missing; apt-get install man-db")
    found = subprocess.run(["lexgrog", path], capture_output=True, text=True, check=False)
    assert found.stdout == f'{path}: "{name_line}"\n', found.stderr


@EVERY_PAGE
def test_page_passes_mandoc_lint(path: Path) -> None:
    if shutil.which("mandoc") is None:
        skip_or_fail("mandoc is missing; apt-get install mandoc")
    found = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("", 0)


@EVERY_PAGE
def test_references_to_own_pages_exist(path: Path) -> None:
    ours = re.compile(r"\b((?:llama-orch|queen-|pool-|engine-|orchctl)[a-z.-]*)\((\d)\)")
    named = {f"{name}.{section}" for name, section in ours.findall(Page(path).text)}
    assert named <= {other.name for other in PAGES}


def environment_page(daemon: Daemon[Any]) -> Page:
    return page(f"{daemon.name}.env.5")


@EVERY_DAEMON
def test_every_variable_is_documented_as_declared(daemon: Daemon[Any]) -> None:
    documented = {entry.names[0]: entry.text for entry in environment_page(daemon).entries("VARIABLES")}
    declared = daemon.settings.variables()
    assert list(documented) == [var.env for var in declared.values()]
    for field, var in declared.items():
        text = documented[var.env]
        assert text.startswith(f"{var.meaning} {var.more}".strip())
        assert f"Allowed: {var.allowed}." in text
        assert f"Default: {default_text(daemon.settings, field, var)}." in text
        assert (f"The packages set {var.packaged}." in text) == (var.packaged is not None)
        assert (f"Required {var.required}." in text) == (var.required is not None)
        assert ("HOME_PROFILE only" in text, "CLOUD_PROFILE only" in text) == (
            var.profile == "home",
            var.profile == "cloud",
        )
        assert ("An addition to the configuration reference." in text) == var.addition
        assert ("A secret," in text) == var.secret
        assert text.endswith(f"{var.env}={var.example}")


@EVERY_DAEMON
def test_sources_of_secrets_are_documented_in_order(daemon: Daemon[Any]) -> None:
    documented = {entry.names[0]: entry.text for entry in environment_page(daemon).entries("VARIABLES")}
    for var in daemon.settings.variables().values():
        if var.credential and var.file:
            sources = f"the systemd credential {var.credential}, the file named by {var.file}, this variable."
            assert f"The first of these sources is used: {sources}" in documented[var.env]


@EVERY_DAEMON
def test_rules_across_variables_are_documented(daemon: Daemon[Any]) -> None:
    for check in daemon.settings.rules().values():
        assert " ".join((check.__doc__ or "").split()) in environment_page(daemon).text


@EVERY_DAEMON
def test_profile_specific_variables_are_documented(daemon: Daemon[Any]) -> None:
    for profile in ("home", "cloud"):
        own = [var.env for var in daemon.settings.variables().values() if var.profile == profile]
        assert not own or f"{profile.upper()}_PROFILE only: {', '.join(own)}." in environment_page(daemon).text


@EVERY_DAEMON
def test_environment_examples_are_valid(daemon: Daemon[Any]) -> None:
    examples = [example for example in environment_page(daemon).examples() if re.match("[A-Z]", example)]
    assert len(examples) == len(daemon.settings.examples)
    profiles = {daemon.settings.load(parse(example)).profile for example in examples}
    assert profiles in ({"home", "cloud"}, {"any"})


@EVERY_DAEMON
def test_daemon_page_refers_to_page_of_its_variables(daemon: Daemon[Any]) -> None:
    assert daemon_page(daemon).entries("ENVIRONMENT") == []
    assert f"{daemon.name}.env(5)" in daemon_page(daemon).text


@EVERY_DAEMON
def test_every_daemon_option_is_documented(daemon: Daemon[Any]) -> None:
    assert set(daemon_page(daemon).names("OPTIONS")) == options(daemon_process._parser(daemon))


@EVERY_DAEMON
def test_manual_lists_the_declared_routes(daemon: Daemon[Any]) -> None:
    declared = [f"{route.method} {documented_path(route)}" for route in ROUTES[daemon.name]]
    assert sorted(daemon_page(daemon).names("HTTP INTERFACE")) == sorted(declared)


def documented_path(route: Route) -> str:
    """Return the path as the pages write it. The rest of a path that goes to an engine keeps its dots."""
    path = route.path if route.method == "ANY" else route.plain_path
    return path.replace("{", "<").replace("}", ">")


def metrics(daemon: Daemon[Any], directory: Path) -> CollectorRegistry:
    if daemon is QUEEN:
        return QueenMetrics().registry
    if daemon is POOL_MANAGER:
        return PoolManagerMetrics(NodePools()).collectors
    registry = CollectorRegistry()
    PoolReports(directory, registry)
    return registry


@EVERY_DAEMON
def test_documented_metrics_match_code(daemon: Daemon[Any], tmp_path: Path) -> None:
    families = list(metrics(daemon, tmp_path).collect())
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert set(daemon_page(daemon).names("METRICS")) == {name for name in names if not name.startswith("process_")}


@EVERY_DAEMON
def test_daemon_page_names_every_unit(daemon: Daemon[Any]) -> None:
    units = {path.name for path in (ROOT / "units").glob(f"{daemon.name}*")}
    assert {unit for unit in units if unit not in daemon_page(daemon).text} == set()


def test_orchctl_exit_statuses_are_those_of_sysexits() -> None:
    documented = {int(line) for line in re.findall(r"^\.TP\n(\d+)$", "\n".join(page("orchctl.1").lines), re.MULTILINE)}
    assert documented - {130, 141} <= set(ExitStatus)


def options(parser: argparse.ArgumentParser) -> set[str]:
    """The option strings of `parser`, without those of its commands."""
    return {name for action in parser._actions for name in action.option_strings}


def option_names(commands: Sequence[CliCommand]) -> Iterator[str]:
    for command in commands:
        yield from (name for argument in command.arguments if argument.is_option for name in argument.names)
        yield from option_names(command.subcommands)


def test_orchctl_page_lists_every_command_and_option() -> None:
    common = options(build_parser()).union(*(argument.names for argument in COMMON_ARGUMENTS))
    assert set(page("orchctl.1").names("OPTIONS")) == common.union(option_names(COMMANDS))
    assert page("orchctl.1").names("DESCRIPTION") == [command.name for command in COMMANDS]
    for command in COMMANDS:
        documented = page("orchctl.1").names(f"Commands of {command.name}")
        assert documented == [subcommand.name for subcommand in command.subcommands]


def test_every_task_field_is_documented() -> None:
    assert set(page("queen-rbee.8").names("Tasks")) == set(TaskRequest.model_fields)


KEYS: dict[str, type[BaseModel]] = {
    "POOL": Pool,
    "GROUPS": Group,
    "MODEL": Model,
    "TIMEOUTS": Timeouts,
    **{f"Mode {mode.mode_name()}": mode for mode in MODES},
}


@pytest.mark.parametrize("section", KEYS)
def test_every_pools_file_key_is_documented_with_default(section: str) -> None:
    entries = {entry.names[0]: entry.text for entry in page("llama-orch-pools.5").entries(section)}
    references = {name for name in entries if ":" in name}  # the kinds of model reference, below the keys
    fields = {
        name: field for name, field in KEYS[section].model_fields.items() if name != "mode" or section == "GROUPS"
    }
    assert set(entries) - references == set(fields)
    for name, field in fields.items():
        assert documented_default(field) in entries[name], name


def documented_default(field: FieldInfo) -> str:
    """Text that a page must contain about the default of `field`; empty for a table with its own defaults."""
    if field.is_required():
        return "Required"
    value = field.default
    if isinstance(value, BaseModel):
        return ""
    if value is None:
        return "efault"
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return f"Default: {text}"


def test_every_provisioning_mode_is_documented() -> None:
    (entry,) = page("llama-orch-pools.5").entries("PROVISIONING")
    assert all(mode in entry.text for mode in mode_names())


def test_every_refused_flag_is_documented() -> None:
    text = page("llama-orch-pools.5").text.partition("Refused in flags,")[2]
    assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", text.partition(".")[0])) == set(OWNED_FLAGS)


@pytest.mark.parametrize(("name", "count"), [("llama-orch-pools.5", 6), ("llama-orch.7", 1)])
def test_pools_file_examples_are_valid(name: str, count: int) -> None:
    examples = [example for example in page(name).examples() if "[[pools]]" in example]
    assert len(examples) == count
    for example in examples:
        assert pools_file.parse(example.encode(), Path("example.toml"))


def test_every_key_of_the_keys_file_is_documented() -> None:
    documented = {name for entry in page("llama-orch-keys.5").entries("KEYS") for name in entry.names}
    assert documented == set(KeySpec.model_fields)
    text = page("llama-orch-keys.5").text
    for endpoint in get_args(KeyEndpoint):
        assert re.search(rf"\b{endpoint}\b", text)


def test_keys_file_example_is_valid() -> None:
    (example,) = [each for each in page("llama-orch-keys.5").examples() if each.startswith("[[keys]]")]
    assert [key.name for key in keys_file.parse(example.encode(), Path("keys.toml"))] == ["alice", "nightly-report"]


def test_example_error_matches_daemon_message() -> None:
    wrong = '[[pools]]\nid = "a"\nmodel = "file:/m.gguf"\n\n# requests at a time\n\nslots = "4"\n'
    wrong += '[pools.provisioning]\nmode = "package"\nname = "llama.cpp"\nallow_package_installs = true\n'
    with pytest.raises(pools_file.PoolsFileError) as refused:
        pools_file.parse(wrong.encode(), Path("pools.toml"))
    assert f"{refused.value}\n" in page("llama-orch-pools.5").examples()


HANDOFF_FIELDS: dict[str, type[BaseModel]] = {"FIELDS": Handoff, "Model": HandoffModel, "REPORTS": ProvisioningReport}


@pytest.mark.parametrize("section", HANDOFF_FIELDS)
def test_every_handoff_and_report_field_is_documented(section: str) -> None:
    entries = {entry.names[0]: entry.text for entry in page("llama-orch-handoff.5").entries(section)}
    model = HANDOFF_FIELDS[section]
    assert set(entries) == {field.alias or name for name, field in model.model_fields.items()}
    for name, field in model.model_fields.items():
        if field.is_required() or field.default is not None:
            assert documented_default(field) in entries[field.alias or name], name


def test_handoff_and_report_examples_are_valid() -> None:
    documents = [example for example in page("llama-orch-handoff.5").examples() if example.startswith("{")]
    reports = [document for document in documents if '"state"' in document]
    handoffs = [document for document in documents if document not in reports]
    assert (len(handoffs), len(reports)) == (2, 1)
    full = Handoff.model_validate_json(handoffs[0])
    assert full.model_fields_set == set(Handoff.model_fields)
    assert Handoff.model_validate_json(handoffs[1]).pool_id == "mine"
    assert ProvisioningReport.model_validate_json(reports[0]).pool_id == full.pool_id


def test_every_event_is_documented_with_message_id() -> None:
    documented = {entry.names[0]: entry.text for entry in page("llama-orch.7").entries("Events")}
    assert set(documented) == {event.name for event in CATALOG}
    for event in CATALOG:
        assert documented[event.name].endswith(event.message_id)


def test_overview_names_every_unit() -> None:
    text = page("llama-orch.7").text.replace("@POOL", "@")
    kinds = (".target", ".slice", ".socket", ".path", ".service")
    units = {path.name for path in (ROOT / "units").iterdir() if path.suffix in kinds}
    handoff_services = {unit for unit in units if unit.endswith("-handoff.service")}
    assert {unit for unit in units - handoff_services if unit not in text} == set()
