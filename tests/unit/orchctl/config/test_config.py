"""orchctl config: the settings of the daemons, and where each comes from."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llama_orch.redaction import SECRET
from llama_orch.settings.declaration import Declared
from llama_orch.settings.declared import DECLARED
from orchctl.config import sources, units
from orchctl.config.sources import SET, Setting, TextFile, UnitSources, settings_of
from tests.unit.orchctl.imitation_tools import Tools
from tests.unit.orchctl.running import run

UNIT, DROP_IN, ENV = Path("/u/q.service"), Path("/e/q.service.d/o.conf"), Path("/e/q.env")
DECLARATIONS = (
    Declared("A", "1"),
    Declared("B", "2"),
    Declared("TOKEN", "(none)", secret=True, credential="token", file="TOKEN_FILE"),
    Declared("TOKEN_FILE", "(none)"),
    Declared("URL", "(none)"),
)
SECRET_WORDS = "a-secret-of-a-test"


def unit(*texts: tuple[Path, str | None], env: str | None = "", **changed: object) -> UnitSources:
    fragments = [TextFile(*each) for each in texts]
    return replace(UnitSources("queen-rbee", "queen-rbee.service", fragments, [TextFile(ENV, env)]), **changed)  # type: ignore[arg-type]


def found(given: UnitSources) -> dict[str, Setting]:
    return {setting.variable: setting for setting in settings_of(given, DECLARATIONS)}


def source(given: UnitSources, variable: str = "A") -> tuple[str, str]:
    setting = found(given)[variable]
    return setting.value, setting.source


UNIT_TEXT = "[Service]\nEnvironment=A=unit B=unit\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (unit((UNIT, "")), ("1", "default")),
        (unit((UNIT, UNIT_TEXT)), ("unit", "/u/q.service:2")),
        (unit((UNIT, UNIT_TEXT), (DROP_IN, "[Service]\n\nEnvironment=A=in\n")), ("in", f"{DROP_IN}:3")),
        (unit((UNIT, UNIT_TEXT), env="# A=no\n\nA=file\n"), ("file", "/e/q.env:3")),
        (unit((UNIT, UNIT_TEXT), env="A=\n"), ("1", "default")),
        (unit((UNIT, UNIT_TEXT), (DROP_IN, "Environment=\n")), ("1", "default")),
        (unit((UNIT, 'Environment="A=two words" \\\n  B=x\n')), ("two words", "/u/q.service:1")),
        (unit((UNIT, 'Environment="A=broken\n')), ("1", "default")),
        (unit((UNIT, ""), process={"A": "manager"}), ("manager", "environment of the process")),
        (UnitSources("queen-rbee", None, shell={"A": "s"}), ("s", "environment of this shell")),
    ],
)
def test_each_value_has_its_source(given: UnitSources, expected: tuple[str, str]) -> None:
    assert source(given) == expected


def test_credential_precedes_file_and_variable() -> None:
    text = f"TOKEN={SECRET_WORDS}\n"
    assert source(unit(env=text), "TOKEN") == (SET, "/e/q.env:1")
    with_file = unit(env=f"{text}TOKEN_FILE=/f\n")
    assert source(with_file, "TOKEN") == (SET, "file /f (TOKEN_FILE in /e/q.env:2)")
    assert source(replace(with_file, credentials=frozenset({"token"})), "TOKEN")[1].startswith("credential token")


def test_secrets_are_never_shown() -> None:
    given = unit(
        (UNIT, f"Environment=TOKEN={SECRET_WORDS}\n"),
        env=f"URL=https://user:{SECRET_WORDS}@host/x?key={SECRET_WORDS}\n",
        process={"TOKEN": SECRET_WORDS, "URL": f"https://{SECRET_WORDS}@host"},
    )
    assert SECRET_WORDS not in repr(settings_of(given, DECLARATIONS))


def test_running_daemon_with_former_value_is_reported() -> None:
    given = unit((UNIT, UNIT_TEXT), env="A=new\n", process={"A": "old", "B": "unit"})
    assert (found(given)["A"].running, found(given)["B"].running) == ("old", None)


def test_removed_value_is_still_that_of_the_process() -> None:
    setting = found(unit(env="A=new\n", process={}))["A"]
    assert setting.running == "1 (default)"


def test_variables_named_like_secrets_are_declared_secret() -> None:
    """Others with such a name hold a path, or the name of a key."""
    shown = {each.env for daemon in DECLARED.values() for each in daemon if SECRET.search(each.env) and not each.secret}
    paths = {name for name in shown if name.endswith(("_FILE", "_PATH"))} | {"OTEL_EXPORTER_OTLP_CLIENT_KEY"}
    assert shown - paths == {"AWS_ACCESS_KEY_ID"}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """A systemctl with one unit whose environment file sets a port and a token; credentials are in a directory."""
    monkeypatch.setattr(units, "CREDENTIALS", tmp_path)
    monkeypatch.setattr(sources, "CREDENTIALS", tmp_path)
    tools = Tools(tmp_path)
    env, fragment = tmp_path / "queen.env", tmp_path / "queen-rbee.service"
    env.write_text(f"PROMETHEUS_METRICS_PORT=9999\nLLORCH_API_TOKEN={SECRET_WORDS}\n")
    fragment.write_text(f"[Service]\nEnvironmentFile=-{env}\n")
    shown = f"LoadState=loaded\nActiveState=inactive\nMainPID=0\nFragmentPath={fragment}\nDropInPaths=\n"
    tools.add("systemctl", f"{shown}EnvironmentFiles={env} (ignore_errors=yes)\n")
    return tools


def test_changed_settings_of_one_daemon_are_listed(tools: Tools) -> None:
    result = run("config", "show", "queen-rbee", PATH=tools.path)
    assert result.status == 0
    head, _titles, *rows = result.out.splitlines()
    assert head == "queen-rbee (queen-rbee.service, not running)"
    assert {row.split()[0] for row in rows} == {"PROMETHEUS_METRICS_PORT", "LLORCH_API_TOKEN"}
    assert f"{tools.directory}/queen.env:1" in result.out
    assert SECRET_WORDS not in result.out + result.err
    assert "--" in tools.calls("systemctl")[0]


def test_all_settings_are_listed_as_json(tools: Tools) -> None:
    (tools.directory / "api-token").write_text(SECRET_WORDS)
    result = run("config", "show", "--all", "--json", PATH=tools.path)
    document = json.loads(result.out)
    assert [each["daemon"] for each in document["daemons"]] == list(DECLARED)
    settings = {each["variable"]: each for each in document["daemons"][0]["settings"]}
    assert set(settings) == {each.env for each in DECLARED["queen-rbee"]}
    assert settings["LLORCH_API_TOKEN"]["source"].startswith("credential api-token")
    assert SECRET_WORDS not in result.out


def test_default_command_shows_all_daemons(tools: Tools) -> None:
    assert run("config", PATH=tools.path).out.count("(queen-rbee.service") == 1
    assert len(tools.calls("systemctl")) == 3


def test_machine_without_units_shows_the_shell(tmp_path: Path) -> None:
    result = run("config", "show", "queen-rbee", PATH=str(tmp_path), ORCHD_ADMISSION_CAPACITY="7")
    assert "no unit here" in result.out
    assert "environment of this shell" in result.out


def test_unreadable_file_is_reported(tools: Tools) -> None:
    (tools.directory / "queen.env").unlink()
    (tools.directory / "queen.env").mkdir()
    result = run("config", "show", "queen-rbee", PATH=tools.path)
    assert "every setting has its default" in result.out
    assert "queen.env cannot be read by this user" in result.err


def test_unknown_daemon_is_a_usage_error() -> None:
    assert run("config", "show", "nobody").status == 64
