"""orchctl support-bundle: what is in it, and what is not."""

import json
import stat
import tarfile
from pathlib import Path

import pytest

from orchctl.bundle import content, machine
from orchctl.check import local_node
from orchctl.config import sources, units
from orchctl.doctor import site
from tests.unit.orchctl.check.test_check import cluster
from tests.unit.orchctl.imitation_tools import Tools
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import ScriptedQueen, reply, serve

SECRETS = [f"planted-secret-{number:02}" for number in range(16)]
PROMPT = "a prompt that nobody else may read"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """A machine with secrets in every place: environment, drop-in, credentials, pools file, journal, process."""
    secrets = iter(SECRETS)
    etc = tmp_path / "etc"
    (etc / "pools.d").mkdir(parents=True)
    monkeypatch.setattr(machine, "CREDENTIALS", etc)
    monkeypatch.setattr(units, "CREDENTIALS", etc)
    monkeypatch.setattr(sources, "CREDENTIALS", etc)
    monkeypatch.setattr(content, "POOLS_FILE", etc / "pools.toml")
    monkeypatch.setattr(content, "POOLS_DIRECTORY", etc / "pools.d")
    monkeypatch.setattr(local_node, "ID_FILES", (tmp_path / "none",))
    monkeypatch.setattr(local_node, "POOL_MANAGERD_SOCKET", tmp_path / "none")
    monkeypatch.setattr(site, "find_socket", lambda: None)
    credential, bare, in_file = next(secrets), next(secrets), next(secrets)
    (etc / "api-token").write_text(f"{credential}\n")
    (tmp_path / "token-file").write_text(in_file)
    env, fragment, drop_in = etc / "queen-rbee.env", tmp_path / "queen-rbee.service", tmp_path / "override.conf"
    env.write_text(
        f"LLORCH_API_TOKEN={bare}\nHF_TOKEN='{next(secrets)}'\nAWS_SECRET_ACCESS_KEY={next(secrets)}\n"
        f"LLORCH_API_TOKEN_FILE={tmp_path}/token-file\nHF_ENDPOINT=https://u:{next(secrets)}@hub\n"
    )
    fragment.write_text(f"[Service]\nEnvironmentFile=-{env}\nExecStart=/x --api-key {next(secrets)}\n")
    drop_in.write_text(f'[Service]\nEnvironment="OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer {next(secrets)}"\n')
    (etc / "pools.toml").write_text(
        f'[[pools]]\nmodel = "https://h/m.gguf?sig={next(secrets)}"\n[pools.env]\nHF_TOKEN = "{next(secrets)}"\n'
    )
    (etc / "pools.d/a.toml").write_text(f'flags = ["--api-key", "{next(secrets)}"]\n')
    tools = Tools(tmp_path)
    shown = f"Id=queen-rbee.service\nLoadState=loaded\nActiveState=active\nMainPID=0\nFragmentPath={fragment}\n"
    shown += (
        f"DropInPaths={drop_in}\nEnvironmentFiles={env} (ignore_errors=yes)\nEnvironment=HF_TOKEN={next(secrets)}\n"
    )
    tools.add("systemctl", shown)
    lines = f"token {bare} and {credential} and {in_file}\nAuthorization: Bearer {next(secrets)}\n"
    lines += f"Cookie: {next(secrets)}\nGET https://{next(secrets)}@h/\n"
    of_engine = f'case "$*" in *llama-engine*) case "$*" in *_PID=1*) ;; *) echo "{PROMPT}";; esac;; esac'
    tools.add("journalctl", lines, more=of_engine)
    tools.add("nvidia-smi", f"password={next(secrets)}\n")
    assert not list(secrets), "every secret is planted"
    return tools


def queen_with_prompts() -> dict[str, list[bytes]]:
    """Return the script of a queen that would show prompts below other paths than those that are asked."""
    return {
        **cluster(),
        "*": [reply(404, {"code": "NOT_FOUND", "message": PROMPT})],
        "GET /v2/tasks": [reply(200, PROMPT)],
    }


def bundle(queen: ScriptedQueen, tools: Tools) -> tuple[str, dict[str, str]]:
    """Make a bundle; return the output, and the texts by name without the first directory."""
    path = tools.directory / "bundle.tar.gz"
    secret = "secret-of-this-command"
    words = ("support-bundle", "-o", str(path), "--url", queen.url)
    result = run(*words, PATH=tools.path, LLORCH_API_TOKEN=secret)
    assert (result.status, result.err) == (0, "")
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        texts = {name.partition("/")[2]: file.read().decode() for name, file in files.items() if file}
    assert all(secret not in text for text in (*texts.values(), result.out))
    return result.out, texts


def test_no_secret_and_no_prompt_is_in_the_bundle(tools: Tools) -> None:
    with serve(queen_with_prompts()) as queen:
        out, texts = bundle(queen, tools)
        asked = {request.line for request in queen.requests}
    everything = "\n".join([out, *texts, *texts.values()])
    assert [secret for secret in SECRETS if secret in everything] == []
    assert texts["journal/engines.txt"]
    assert PROMPT not in everything.replace(f"NOT_FOUND: {PROMPT}", "")
    assert not [line for line in asked if "/tasks" in line or "/artifacts" in line]


def test_bundle_has_what_is_needed_and_says_so(tools: Tools) -> None:
    with serve(queen_with_prompts()) as queen:
        out, texts = bundle(queen, tools)
    assert set(texts) >= {
        *("versions.json", "doctor.json", "config.json", "queen/pools.json", "queen/nodes.json", "queen/gpus.json"),
        *("queen/operations.json", "journal/queen-rbee.txt", "units/queen-rbee.service.txt", "system/nvidia-smi.txt"),
        f"files{tools.directory}/override.conf",
        f"files{tools.directory}/etc/pools.d/a.toml",
    }
    assert all(name in out for name in texts)
    assert str(tools.directory / "bundle.tar.gz") in out
    assert json.loads(texts["queen/pools.json"])["count"] == 1
    assert {"level", "subject", "text", "mend"} <= set(json.loads(texts["doctor.json"])["findings"][0])
    settings = json.loads(texts["config.json"])[0]["settings"]
    assert {each["variable"] for each in settings if each["value"] == "(set)"} >= {"LLORCH_API_TOKEN"}
    assert any("--lines=2000" in call for call in tools.calls("journalctl"))


def test_only_the_owner_can_read_the_bundle(tools: Tools) -> None:
    with serve(queen_with_prompts()) as queen:
        bundle(queen, tools)
    assert stat.S_IMODE((tools.directory / "bundle.tar.gz").stat().st_mode) == 0o600


def test_existing_file_is_not_overwritten(tools: Tools) -> None:
    target = tools.directory / "bundle.tar.gz"
    target.symlink_to(tools.directory / "elsewhere")
    with serve(queen_with_prompts()) as queen:
        result = run("support-bundle", "-o", str(target), "--url", queen.url, PATH=tools.path)
    assert result.status == 73
    assert "exists already" in result.err
    assert not (tools.directory / "elsewhere").exists()


def test_bundle_is_made_without_queen_and_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "find_socket", lambda: None)
    monkeypatch.chdir(tmp_path)
    with serve({}) as queen:
        pass
    result = run("support-bundle", "--json", "--url", queen.url, PATH=str(tmp_path))
    document = json.loads(result.out)
    assert result.status == 0
    assert Path(document["path"]).parent == tmp_path
    assert "not gathered" in tarfile_text(Path(document["path"]), "queen/pools.json")


def tarfile_text(path: Path, name: str) -> str:
    with tarfile.open(path) as archive:
        (member,) = (each for each in archive.getmembers() if each.name.endswith(name))
        file = archive.extractfile(member)
        assert file
        return file.read().decode()
