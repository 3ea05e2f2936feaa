"""The settings match the user's configuration reference: names, defaults, ranges, valid values, examples."""

import re
import secrets
from collections import Counter
from pathlib import Path

import pytest

from llama_orch.settings import ConfigurationError
from llama_orch.settings.loading import NONE, as_text
from tests.unit.reference import parsing
from tests.unit.reference.parsing import DOCUMENT, Entry, SetUp, UnknownForm
from tools.generate import DAEMONS

ENTRIES, SET_UPS = parsing.entries(), parsing.set_ups()
TOKEN = secrets.token_hex(32)
PLACEHOLDERS = {"$(openssl rand -hex 32)": TOKEN, "<same-token-as-queen-rbee>": TOKEN}
NO_DEFAULT = {("queen-rbee", "ORCHD_ADDR"): "0.0.0.0:8080"}
"""An alias has no default: if it had one, it would always override the default of the main variable."""
ADDITIONAL_VARIABLES = {("engine-provisioner", "RUST_LOG")}
"""Variables of the reference that a daemon supports although they are not in its section."""
INVALID_VALUES = {
    "Boolean": "yes",
    "Integer": "1.5",
    "Integer (milliseconds)": "1s",
    "Integer (port)": "65536",
    "Integer (seconds)": "10.0",
    "String": "with blank",
    "String (URL)": "tempo:4317",
    "String (comma-separated GPU indices)": "gpu0",
    "String (enum)": "no-such-value",
    "String (host:port)": "8080",
    "String (log level)": "loud",
    "String (path)": None,
}
"""An invalid value for each type, or None if every text is valid."""


def entry_id(entry: Entry) -> str:
    return f"{entry.daemon}-{entry.env}"


def set_up_id(set_up: SetUp) -> str:
    return f"{set_up.daemon}, {set_up.title}"


EVERY_ENTRY = pytest.mark.parametrize("entry", ENTRIES, ids=entry_id)
EVERY_SET_UP = pytest.mark.parametrize("set_up", SET_UPS, ids=set_up_id)


def example(entry: Entry) -> str:
    """Return the value of the example, with placeholders replaced by a token."""
    return PLACEHOLDERS.get(entry.example, entry.example)


def cloud(daemon: str) -> dict[str, str]:
    """Return an environment for CLOUD_PROFILE: the required variables, with the values of their examples."""
    own = {entry.env: example(entry) for entry in ENTRIES if entry.daemon == daemon and entry.required}
    return own | ({"ORCHESTRATORD_CLOUD_PROFILE": "true"} if daemon == "queen-rbee" else {})


def effective_value(entry: Entry, environ: dict[str, str]) -> str:
    """Return the effective value of the variable with `environ`, as text."""
    effective = DAEMONS[entry.daemon].load(environ).effective(environ)
    return next(value for env, value, _source in effective if env == entry.env)


def refusal(entry: Entry, value: str) -> str:
    """Return the error for `value`, which must be refused."""
    with pytest.raises(ConfigurationError) as refused:
        DAEMONS[entry.daemon].load({entry.env: value})
    return next(str(problem) for problem in refused.value.problems if problem.variable == entry.env)


def test_whole_reference_is_parsed() -> None:
    text = DOCUMENT.read_text()
    written = Counter(re.findall(r"^- \*\*(.+?)\*\*:", text, re.MULTILINE))
    assert written == Counter(name for entry in ENTRIES for name in entry.fields)
    assert written["Type"] == written["Default"] == written["Example"] == text.count("\n#### ") == len(ENTRIES)
    assert parsing.daemons() == list(DAEMONS) == list(dict.fromkeys(entry.daemon for entry in ENTRIES))
    assert {entry.kind for entry in ENTRIES} == set(INVALID_VALUES)


def test_every_complete_example_is_parsed() -> None:
    lines = parsing.section("Configuration Examples")
    assert len({set_up.title for set_up in SET_UPS}) == lines.count("```bash")
    given = {f"{name}={value}" for set_up in SET_UPS for name, value in set_up.values.items()}
    assert given == {line for line in lines if re.match(r"[A-Z_]+=", line)}


@pytest.mark.parametrize("line", ["An aside.", "- **Unit**: seconds", "#### lower", "- **Type**: twice", "```python"])
def test_unknown_form_is_an_error(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = DOCUMENT.read_text().replace("- **Range**: `1` to `10000`", f"- **Range**: `1` to `10000`\n{line}")
    (tmp_path / "changed.md").write_text(changed)
    monkeypatch.setattr(parsing, "DOCUMENT", tmp_path / "changed.md")
    with pytest.raises(UnknownForm, match=re.escape(line)):
        parsing.entries()


@pytest.mark.parametrize("daemon", DAEMONS)
def test_every_variable_is_in_reference_or_an_addition(daemon: str) -> None:
    declared = {var.env: var for var in DAEMONS[daemon].variables().values()}
    documented = {entry.env for entry in ENTRIES if entry.daemon == daemon}
    documented |= {env for name, env in ADDITIONAL_VARIABLES if name == daemon}
    assert {env for env, var in declared.items() if not var.addition} == documented


@EVERY_ENTRY
def test_variable_has_default_of_reference_in_each_profile(entry: Entry) -> None:
    for profile, default in entry.defaults.items():
        if (entry.daemon, entry.env) in NO_DEFAULT:
            assert default == NO_DEFAULT[entry.daemon, entry.env]
            assert effective_value(entry, {}) == NONE
            continue
        environ = cloud(entry.daemon) if profile == "CLOUD_PROFILE" else {}
        expected = NONE if default is None else as_text(Path(default).expanduser() if default[0] == "~" else default)
        assert effective_value(entry, environ) == expected


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.range], ids=entry_id)
def test_range_matches_reference(entry: Entry) -> None:
    assert entry.range
    low, high = entry.range
    assert [effective_value(entry, {entry.env: str(bound)}) for bound in (low, high)] == [str(low), str(high)]
    for beyond in (low - 1, high + 1):
        assert f"from {low} to {high}" in refusal(entry, str(beyond))


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.values], ids=entry_id)
def test_valid_values_are_accepted_and_named_in_errors(entry: Entry) -> None:
    for value in entry.values:
        DAEMONS[entry.daemon].load({"LLORCH_API_TOKEN": TOKEN, entry.env: value})
    said = refusal(entry, "no-such-value")
    assert all(re.search(rf"\b{value}\b", said.partition("Allowed:")[2]) for value in entry.values)


@EVERY_ENTRY
def test_value_of_wrong_type_is_refused(entry: Entry) -> None:
    invalid_value = INVALID_VALUES[entry.kind]
    if invalid_value is not None:
        assert refusal(entry, invalid_value).startswith(entry.env)


@EVERY_ENTRY
def test_example_value_takes_effect(entry: Entry) -> None:
    environ = cloud(entry.daemon) | {entry.env: example(entry)}
    if example(entry) == TOKEN:
        assert effective_value(entry, environ).startswith("token_fp6=")
    else:
        assert effective_value(entry, environ) == example(entry)


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.required], ids=entry_id)
def test_required_variable_is_required_in_cloud_profile_only(entry: Entry) -> None:
    settings, environ = DAEMONS[entry.daemon], cloud(entry.daemon)
    assert settings.load({}).profile == "home"
    assert settings.load(environ).profile == "cloud"
    del environ[entry.env]
    with pytest.raises(ConfigurationError) as refused:
        settings.load(environ)
    assert [problem.variable for problem in refused.value.problems] == [entry.env]


@EVERY_SET_UP
def test_complete_example_takes_effect_unchanged(set_up: SetUp) -> None:
    environ = dict(set_up.values)
    settings = DAEMONS[set_up.daemon].load(environ)
    effective = {env: (value, source) for env, value, source in settings.effective(environ)}
    for name, value in set_up.values.items():
        shown, source = effective[name]
        assert source == "environment"
        assert shown == value or shown.startswith("token_fp6=")
    expected = "cloud" if set_up.title.startswith("CLOUD_PROFILE") else "home"
    assert settings.profile in (expected, "any")
    assert settings.without_effect(environ) == []


@pytest.mark.parametrize("daemon", DAEMONS)
def test_manual_has_complete_examples_of_reference(daemon: str) -> None:
    own = [set_up for set_up in SET_UPS if set_up.daemon == daemon and not set_up.title.endswith("Node 2")]
    examples = DAEMONS[daemon].examples
    assert [dict(shown.values) for shown in examples] == [dict(set_up.values) for set_up in own]
    assert [shown.title[:5] for shown in examples] == [set_up.title[:5] for set_up in own] == ["HOME_", "CLOUD"]
