"""Valid pools files are parsed; problems are reported all at once, with line, key and what is allowed."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine_provisioner.spec.pools_directory import path_for, read
from engine_provisioner.spec.pools_file import PoolsFileError, parse

PATH = Path("/etc/llama-orch/pools.toml")
VALID = """\
[[pools]]
id = "default"
model = "file:/srv/model.gguf"
ctx = 4096
slots = 4
devices = [0, 1]
tensor_split = [3, 1]
flags = ["--flash-attn", "on"]
[pools.provisioning]
mode = "package"
name = "llama.cpp"
allow_package_installs = true

[[pools]]
id = "theirs"
provisioning = { mode = "external", url = "http://127.0.0.1:8081" }
"""


def problems(text: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(PoolsFileError) as caught:
        parse(text.encode(), PATH)
    return [(problem.line, problem.key, problem.problem) for problem in caught.value.problems]


def test_valid_file_gives_its_pools() -> None:
    first, second = parse(VALID.encode(), PATH)
    assert (first.id, first.ctx, first.slots, first.devices) == ("default", 4096, 4, [0, 1])
    assert first.model is not None
    assert first.model.ref == "file:/srv/model.gguf"
    assert second.model is None


def test_missing_file_is_no_error(tmp_path: Path) -> None:
    assert read(tmp_path / "pools.toml") is None


def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(PoolsFileError, match="cannot be read"):
        read(tmp_path)


def test_oversized_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "pools.toml"
    path.write_bytes(b"#" * (1 << 21))
    with pytest.raises(PoolsFileError, match="larger than"):
        read(path)


@pytest.mark.parametrize(
    ("setting", "line", "key", "text"),
    [
        ('id = "Default"', 2, "pools[0].id", "lower-case letters"),
        ('colour = "blue"', 2, "pools[0].colour", "allowed: id, engine, model"),
        ('ctx = "4096"', 2, "pools[0].ctx", "must be a whole number"),
        ("slots = 0", 2, "pools[0].slots", "0 is out of range (1 to 256)"),
        ("devices = []", 2, "pools[0].devices", 'such as [0], or "cpu"'),
        ("devices = [1, 1]", 2, "pools[0].devices", "twice"),
        ("ports = [80, 81]", 2, "pools[0].ports", "has 2 elements; at most 1 allowed"),
        ("ports = [70000]", 2, "pools[0].ports[0]", "70000 is out of range (1 to 65535)"),
        ('flags = ["--host=0.0.0.0"]', 2, "pools[0].flags[0]", "engines listen on 127.0.0.1 only"),
        ('flags = [\n"-fa",\n"-c"]', 4, "pools[0].flags[1]", "use the key ctx"),
        ('env = { CUDA_VISIBLE_DEVICES = "1" }', 2, "pools[0].env", "use the key devices"),
        ('env = { "a b" = "1" }', 2, "pools[0].env", "invalid variable name 'a b'"),
        ('engine = "ollama"', 2, "pools[0].engine", "llamacpp"),
        ('quant = "Q4_K_M"', 2, "pools[0].quant", "hf:"),
        ("tensor_split = [1.0]", 2, "pools[0].tensor_split", "give one for each device"),
        ("timeouts = { wall = 1 }", 2, "pools[0].timeouts.wall", "allowed: wall_ms, idle_ms"),
        ('keep_alive = "5 minutes"', 2, "pools[0].keep_alive", "such as 5m, 90s or 1h, 0"),
        ("keep_alive = -2", 2, "pools[0].keep_alive", "or -1 to keep"),
        ("keep_alive = true", 2, "pools[0].keep_alive", "must be a duration"),
        ('keep_alive = "366d"', 2, "pools[0].keep_alive", "is longer than a year"),
        ("pinned = 1", 2, "pools[0].pinned", "true or false"),
        ('group = "Chat"', 2, "pools[0].group", "lower-case letters"),
        ('group = "chat"', 2, "pools[0].group", "chat is not declared (the file declares none); add [groups.chat]"),
        ("model = 5", 2, "pools[0].model", "must be a reference"),
        ('model = "file:model.gguf"', 2, "pools[0].model", "absolute path"),
        ('model = "http://example.org/m.gguf"', 2, "pools[0].model", "use https://"),
        ('model = { ref = "file:/m", checksum = "md5:1" }', 2, "pools[0].model.checksum", "64 lower-case hex"),
    ],
)
def test_problem_is_reported_with_line_key_and_remedy(setting: str, line: int, key: str, text: str) -> None:
    rest = [part for part in ('id = "x"', 'model = "file:/m"') if part.partition(" ")[0] != setting.partition(" ")[0]]
    how = 'provisioning = { mode = "package", name = "llama.cpp", allow_package_installs = true }'
    found = problems("\n".join(["[[pools]]", setting, *rest, how]))
    assert [(where, name) for where, name, _text in found] == [(line, key)]
    assert text in found[0][2]


@pytest.mark.parametrize(
    ("keys", "seconds"),
    [
        ('keep_alive = "5m"', 300),
        ('keep_alive = "90s"', 90),
        ('keep_alive = "1h"', 3600),
        ("keep_alive = 45", 45),
        ("keep_alive = 0", 0),
        ("keep_alive = -1", None),
        ("", None),
        ("preload = false", 300),
        ("preload = false\nkeep_alive = -1", None),
    ],
)
def test_keep_alive_is_in_seconds_and_depends_on_preload(keys: str, seconds: float | None) -> None:
    first, _second = parse(VALID.replace("slots = 4", keys).encode(), PATH)
    assert first.keep_alive_s == seconds


@pytest.mark.parametrize(("mode", "exclusive"), [("exclusive", True), ("together", False)])
def test_pool_knows_the_mode_of_its_group(mode: str, exclusive: bool) -> None:
    text = VALID.replace("slots = 4", 'group = "g"') + f'\n[groups.g]\nmode = "{mode}"\n'
    first, second = parse(text.encode(), PATH)
    assert (first.group, first.exclusive, second.exclusive) == ("g", exclusive, False)


@pytest.mark.parametrize(
    ("groups", "key", "text"),
    [
        ('[groups.g]\nmode = "both"', "groups.g.mode", "(allowed: exclusive or together)"),
        ("[groups.g]", "groups.g.mode", "is missing"),
        ('[groups.g]\nmode = "together"\nsize = 1', "groups.g.size", "allowed: mode"),
        ('[groups.G]\nmode = "together"', "groups.G", "lower-case letters"),
        ("[groups]\ng = 1", "groups.g", "must be a table"),
    ],
)
def test_invalid_group_is_reported(groups: str, key: str, text: str) -> None:
    ((_line, where, problem),) = problems(f"{VALID}\n{groups}\n")
    assert where == key
    assert text in problem


def test_undeclared_group_is_reported_with_the_declared_ones() -> None:
    text = VALID.replace("slots = 4", 'group = "chat"') + '\n[groups.images]\nmode = "exclusive"\n'
    assert problems(text)[0] == (
        5,
        "pools[0].group",
        "chat is not declared (allowed: images); add [groups.chat] with a mode",
    )


@pytest.mark.parametrize("key", ['keep_alive = "5m"', "pinned = true"])
def test_external_engine_cannot_be_loaded_or_unloaded(key: str) -> None:
    ((line, where, problem),) = problems(VALID.replace('id = "theirs"', f'id = "theirs"\n{key}'))
    assert (line, where) == (16, f"pools[1].{key.partition(' ')[0]}")
    assert "mode external does not load or unload the engine" in problem


@pytest.mark.parametrize(
    ("how", "key", "text"),
    [
        (
            '{ mode = "binary", url = "https://h/f" }',
            "pools[0].provisioning.checksum",
            "is missing; this table requires it",
        ),
        ('{ mode = "package", name = "llama.cpp" }', "pools[0].provisioning", "allow_package_installs = true"),
        (
            '{ mode = "package", name = "pip:xllamacpp", allow_package_installs = true }',
            "pools[0].provisioning",
            "version is missing",
        ),
        (
            '{ mode = "package", name = "llama.cpp", version = "1", allow_package_installs = true }',
            "pools[0].provisioning.version",
            "the distribution chooses the version",
        ),
        ('{ mode = "package", name = "vllm" }', "pools[0].provisioning.name", "llama.cpp"),
        ('{ mode = "external", url = "http://10.0.0.1:80" }', "pools[0].provisioning.url", "loopback"),
        ('{ mode = "source" }', "pools[0].provisioning", "repo or archive"),
        ('{ mode = "magic" }', "pools[0].provisioning", "allowed: external, source, container, package, binary"),
        ("{}", "pools[0].provisioning", "allowed: external, source, container, package, binary"),
    ],
)
def test_invalid_mode_is_reported(how: str, key: str, text: str) -> None:
    found = problems(f'[[pools]]\nid = "x"\nmodel = "file:/m"\nprovisioning = {how}\n')
    assert [(line, name) for line, name, _text in found] == [(4, key)]
    assert text in found[0][2]


def test_all_problems_are_reported_in_file_order() -> None:
    text = VALID.replace("ctx = 4096", 'ctx = "4096"').replace('id = "theirs"', 'id = "default"\nslots = 999')
    text += '\n[[pools]]\nid = "third"\nprovisioning = { mode = "package", name = "llama.cpp" }\n'
    found = problems(text)
    assert [(line, key) for line, key, _words in found] == [
        (4, "pools[0].ctx"),
        (15, "pools[1].id"),
        (16, "pools[1].slots"),
        (19, "pools[2].model"),
        (21, "pools[2].provisioning"),
    ]
    assert "already used by the pool on line 2" in found[1][2]


def test_invalid_toml_is_reported_with_its_line() -> None:
    assert problems('[[pools]]\nid = "a\n')[0][:2] == (2, "")


def test_lines_are_right_with_carriage_returns() -> None:
    assert problems(VALID.replace("ctx = 4096", "ctx = 1").replace("\n", "\r\n"))[0][0] == 4


@given(st.binary(max_size=200))
@example(b"[[pools]]\nid = 'x'\npools.x = 1")
@example(b"\xff")
@example(b"a = " + b"[" * 2000)
def test_any_content_gives_pools_or_problems(raw: bytes) -> None:
    try:
        outcome: object = parse(raw, PATH)
    except PoolsFileError as error:
        outcome = error.problems
    assert isinstance(outcome, list)


def test_pools_file_of_the_working_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_for(None) == PATH
    Path("pools.toml").touch()
    assert path_for(None) == Path("pools.toml")
    assert path_for(Path("/elsewhere")) == Path("/elsewhere")


@pytest.mark.parametrize(
    "ref", ["http://me:geheim@h/m?t=geheim", "ftp://me:geheim@h/m", "s3://me:geheim@b/k", "hf:me:geheim@h"]
)
@pytest.mark.parametrize("key", ["model", "url"])
def test_credentials_of_refused_references_are_not_shown(ref: str, key: str) -> None:
    lines = {"model": f'model = "{ref}"', "url": ""}[key]
    url = ref if key == "url" else "http://127.0.0.1:1"
    text = f'[[pools]]\nid = "a"\n{lines}\nprovisioning = {{ mode = "external", url = "{url}" }}\n'
    with pytest.raises(PoolsFileError) as refused:
        parse(text.encode(), Path("pools.toml"))
    assert "geheim" not in str(refused.value)
