"""llama-orch-security(7) matches units/, packaging/ and the code."""

import re
from pathlib import Path

import pytest

from llama_orch.http.server.access import OPEN_PATHS, OPEN_PREFIX, PAGE_PREFIXES
from llama_orch.http.server.h11_exchange import HEAD_LIMIT_S
from llama_orch.http.server.hot_exchange import HEAD_LIMIT
from tests.unit.manual_page import Page

ROOT = Path(__file__).parents[2]
PRIVILEGED = {"llama-engine-container@.service", "llama-engine-image@.service", "llama-orch-suspend.service"}


def page() -> Page:
    return Page(ROOT / "man/llama-orch-security.7")


def described(section: str) -> dict[str, str]:
    """Return the text of each tagged paragraph in the section by each of its names."""
    return {name: entry.text for entry in page().entries(section) for name in entry.names}


def setting(unit: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", (ROOT / "units" / unit).read_text(), re.MULTILINE)


def sysusers(kind: str) -> list[list[str]]:
    lines = (ROOT / "packaging/sysusers.d/llama-orch.conf").read_text().splitlines()
    return [line.split()[1:] for line in lines if line.startswith(f"{kind} ")]


def test_users_and_their_groups_are_those_of_the_package() -> None:
    users = {user for user, *_rest in sysusers("u")}
    groups = {group for group, *_rest in sysusers("g")}
    assert set(described("USERS AND GROUPS")) == users | groups
    for user, text in described("USERS AND GROUPS").items():
        named = re.search(r"Groups? (.*?)\.", text)
        own = {group for member, group in sysusers("m") if member == user}
        own |= (
            set(" ".join(setting(f"{user}.service", "SupplementaryGroups")).split())
            if user == "pool-managerd"
            else set()
        )
        assert own <= set(re.findall(r"[a-z][\w-]+", named[1] if named else "")), user


def test_only_named_units_run_as_root() -> None:
    services = [path.name for path in (ROOT / "units").glob("*.service")]
    assert {unit for unit in services if not setting(unit, "User")} == PRIVILEGED
    for unit in services:
        capabilities = " ".join(setting(unit, "CapabilityBoundingSet")).split()
        assert bool(capabilities) == (unit in PRIVILEGED), unit
        assert setting(unit, "NoNewPrivileges") == ["yes"], unit
        assert setting(unit, "ProtectSystem") == ["strict"], unit
        assert setting(unit, "PrivateTmp") == ["yes"], unit
        assert setting(unit, "SystemCallFilter"), unit
        assert setting(unit, "RestrictAddressFamilies"), unit
    [suspend] = setting("llama-orch-suspend.service", "CapabilityBoundingSet")
    assert suspend.split() == ["CAP_SYS_BOOT", "CAP_DAC_OVERRIDE"]
    assert all(name in described("SANDBOXES")["llama-orch-suspend.service"] for name in suspend.split())


def test_every_service_has_a_figure() -> None:
    found = described("SANDBOXES")
    assert set(found) == {path.name for path in (ROOT / "units").glob("*.service")}
    assert [name for name, text in found.items() if not re.match(r"\d\.\d\. ", text)] == []


@pytest.mark.parametrize("unit", ["llama-engine@.service", "llama-engine-container@.service"])
def test_engines_reach_loopback_and_gpus_only(unit: str) -> None:
    assert (setting(unit, "IPAddressDeny"), setting(unit, "IPAddressAllow")) == (["any"], ["localhost"])
    assert setting(unit, "DevicePolicy") == ["closed"]
    assert "loopback as the only network" in described("SANDBOXES")[unit].lower()


def test_secrets_are_credentials_of_root() -> None:
    credentials = {line for path in (ROOT / "units").glob("*.service") for line in setting(path.name, "LoadCredential")}
    named = page().text
    for line in credentials:
        assert line.partition(":")[2].rpartition("/")[2] in named, line
    rules = (ROOT / "packaging/debian/rules").read_text()
    assert "chmod 640 $(package)/etc/llama-orch/*.env" in rules


def test_open_paths_are_all_named() -> None:
    [open_now] = re.findall(r"these paths still need none: (.*?)\. ", page().text)
    assert all(path in open_now for path in (*OPEN_PATHS, OPEN_PREFIX, *PAGE_PREFIXES))


def test_open_addresses_are_those_of_the_sockets() -> None:
    addresses = {line for path in (ROOT / "units").glob("*.socket") for line in setting(path.name, "ListenStream")}
    inet = {address for address in addresses if not address.startswith("/")}
    assert inet <= set(described("WHAT IS OPEN"))


def test_limits_of_a_request_head_are_right() -> None:
    assert f"at most {HEAD_LIMIT // 1024} KiB and {HEAD_LIMIT_S:.0f} seconds" in page().text


def test_rule_of_polkit_is_described() -> None:
    rules = (ROOT / "packaging/polkit/50-llama-orch.rules").read_text()
    assert rules.count("addRule") == 2
    assert 'indexOf(action.lookup("verb"))' in rules
    text = page().text
    assert "engine-provisioner may start, stop and restart units named llama-engine@, llama-engine-container@" in text
    assert "pool-managerd may take an inhibitor lock that delays sleep" in text
