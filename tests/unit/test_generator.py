"""llama-orch-generator turns environment files into drop-ins for the sockets."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.settings.environment_file import Reader, parse
from pool_managerd.settings import PoolManagerSettings
from queen_rbee.settings import CLOUD_ADDRESS, HOME_ADDRESS, QueenSettings

GENERATOR = Path(__file__).parents[2] / "units" / "llama-orch-generator"
QUEEN, POOL = "queen-rbee", "pool-managerd"
BOUND_BY_DAEMON = "ConditionPathExists=!/"


def generate(folder: Path, queen: bytes | str = "", pool: bytes | str = "") -> dict[str, str]:
    """Return the address of each socket, or BOUND_BY_DAEMON if the daemon must bind it."""
    for name, text in ((QUEEN, queen), (POOL, pool)):
        (folder / f"{name}.env").write_bytes(text if isinstance(text, bytes) else text.encode())
    return run(folder)


def run(folder: Path) -> dict[str, str]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    process = subprocess.run(
        ["/bin/sh", str(GENERATOR), str(out), str(out), str(out)],
        env={"LLAMA_ORCH_ETC": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, ""), "a generator must not break booting"
    found = {}
    for drop_in in out.glob("*.d/*.conf"):
        lines = drop_in.read_text().splitlines()
        if lines[:2] == ["[Socket]", "ListenStream="]:
            assert len(lines) == 3, lines
            found[drop_in.parent.name.removesuffix(".socket.d")] = lines[2].removeprefix("ListenStream=")
        else:
            assert lines[1:] == ["[Unit]", BOUND_BY_DAEMON], lines
            found[drop_in.parent.name.removesuffix(".socket.d")] = BOUND_BY_DAEMON
        drop_in.unlink()
    return found


PACKAGED = {var.env: var.packaged for var in PoolManagerSettings.variables().values() if var.packaged}
POOLS = PoolManagerSettings.load(PACKAGED)
HOME_ADDRESSES = {
    "queen-rbee": str(HOME_ADDRESS),
    "queen-rbee-metrics": f"{HOME_ADDRESS.host}:{QueenSettings.load({}).metrics_port}",
    "pool-managerd": str(POOLS.bind),
    "pool-managerd-metrics": f"{POOLS.bind.host}:{POOLS.metrics_port}",
}


def test_missing_files_give_home_profile_addresses(tmp_path: Path) -> None:
    assert run(tmp_path) == HOME_ADDRESSES


def test_missing_output_directory_argument_does_nothing(tmp_path: Path) -> None:
    process = subprocess.run(["/bin/sh", str(GENERATOR)], capture_output=True, cwd=tmp_path, check=False)
    assert (process.returncode, process.stderr, list(tmp_path.iterdir())) == (0, b"", [])


def test_bind_address_moves_api_and_host_of_metrics(tmp_path: Path) -> None:
    found = generate(tmp_path, "ORCHESTRATORD_BIND_ADDR=10.0.0.5:80\n", "POOL_MANAGERD_BIND_ADDR=[::1]:81\n")
    assert found == {
        "queen-rbee": "10.0.0.5:80",
        "queen-rbee-metrics": "10.0.0.5:9090",
        "pool-managerd": "[::1]:81",
        "pool-managerd-metrics": "[::1]:9091",
    }


def test_each_daemon_has_own_metrics_port(tmp_path: Path) -> None:
    found = generate(tmp_path, "PROMETHEUS_METRICS_PORT=1\n", "PROMETHEUS_METRICS_PORT=2\n")
    assert found["queen-rbee-metrics"] == "127.0.0.1:1"
    assert found["pool-managerd-metrics"] == "127.0.0.1:2"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ORCHD_ADDR=127.0.0.1:1", "127.0.0.1:1"),
        ("ORCHD_ADDR=127.0.0.1:1\nORCHESTRATORD_BIND_ADDR=127.0.0.1:2", "127.0.0.1:2"),
        ("ORCHESTRATORD_BIND_ADDR=127.0.0.1:2\nORCHD_ADDR=127.0.0.1:1", "127.0.0.1:2"),
        ("ORCHESTRATORD_BIND_ADDR=\nORCHD_ADDR=127.0.0.1:1", "127.0.0.1:1"),
        ("ORCHESTRATORD_CLOUD_PROFILE=true", str(CLOUD_ADDRESS)),
        ("ORCHESTRATORD_CLOUD_PROFILE=1", str(CLOUD_ADDRESS)),
        ("ORCHESTRATORD_CLOUD_PROFILE=TRUE", str(CLOUD_ADDRESS)),
        ("ORCHESTRATORD_CLOUD_PROFILE=false", str(HOME_ADDRESS)),
        ("ORCHESTRATORD_CLOUD_PROFILE=yes", str(HOME_ADDRESS)),
        ("ORCHESTRATORD_CLOUD_PROFILE=1\nORCHD_ADDR=127.0.0.1:1", "127.0.0.1:1"),
    ],
)
def test_queen_address_matches_its_settings(tmp_path: Path, text: str, address: str) -> None:
    assert generate(tmp_path, text)["queen-rbee"] == address


def test_empty_variable_means_default_of_daemon(tmp_path: Path) -> None:
    found = generate(tmp_path, pool="POOL_MANAGERD_BIND_ADDR=\n")
    assert found["pool-managerd"] == str(PoolManagerSettings.load({}).bind)


@pytest.mark.parametrize("host", ["localhost:9200", "127.0.0.1:09200"])
def test_address_is_rewritten_in_syntax_of_systemd(tmp_path: Path, host: str) -> None:
    assert generate(tmp_path, pool=f"POOL_MANAGERD_BIND_ADDR={host}")["pool-managerd"] == "127.0.0.1:9200"


@pytest.mark.parametrize(
    "address",
    [
        "gpu-node-1:9200",
        "127.0.0.1:0",
        "1.2.3:9200",
        "1.2.3.4.5:9200",
        "256.0.0.1:9200",
        "01.0.0.1:9200",
        "[fe80::1%eth0]:9200",
        "[1::2::3]:9200",
        "[:::]:9200",
        "[12345::]:9200",
        "a%b:9200",
    ],
)
def test_address_that_systemd_cannot_bind_is_left_to_daemon(tmp_path: Path, address: str) -> None:
    assert generate(tmp_path, pool=f"POOL_MANAGERD_BIND_ADDR={address}")["pool-managerd"] == BOUND_BY_DAEMON


@pytest.mark.parametrize(
    "address",
    ["9200", ":9200", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", "::1:9200", "http://a:1", "a b:1"],
)
def test_invalid_address_changes_no_socket(tmp_path: Path, address: str) -> None:
    found = generate(tmp_path, pool=f"POOL_MANAGERD_BIND_ADDR={address}")
    assert "pool-managerd" not in found
    assert "pool-managerd-metrics" not in found


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "90 90"])
def test_invalid_port_leaves_metrics_socket_unchanged(tmp_path: Path, port: str) -> None:
    found = generate(tmp_path, f"PROMETHEUS_METRICS_PORT={port}")
    assert "queen-rbee-metrics" not in found
    assert found["queen-rbee"] == "127.0.0.1:8080"


def test_file_contents_are_not_executed(tmp_path: Path) -> None:
    hostile = f"ORCHESTRATORD_BIND_ADDR=$(touch {tmp_path}/x)`touch {tmp_path}/x`;touch {tmp_path}/x\n*=*\n-n=-e\n"
    assert "queen-rbee" not in generate(tmp_path, hostile)
    assert not (tmp_path / "x").exists()


def test_directory_instead_of_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "queen-rbee.env").mkdir()
    assert run(tmp_path) == HOME_ADDRESSES


FILES = [
    ("ORCHD_ADDR=1.1.1.1:1", "1.1.1.1:1"),
    ("  ORCHD_ADDR \t=  1.1.1.1:1 \t ", "1.1.1.1:1"),
    ("ORCHD_ADDR='1.1.1.1:1'", "1.1.1.1:1"),
    ('ORCHD_ADDR="1.1.1.1:1"  ', "1.1.1.1:1"),
    ("ORCHD_ADDR='1.1.1.1':1", "1.1.1.1:1"),
    ("ORCHD_ADDR=1.1.1.1:\\\n1", "1.1.1.1:1"),
    ('ORCHD_ADDR="1.1.1.1:\\\n1"', "1.1.1.1:1"),
    ("ORCHD_ADDR=1.1.1.1:1\r\n", "1.1.1.1:1"),
    ("ORCHD_ADDR=1.1.1.1:1\nORCHD_ADDR=2.2.2.2:2", "2.2.2.2:2"),
    ("#ORCHD_ADDR=1.1.1.1:1\n;ORCHD_ADDR=1.1.1.1:1", "127.0.0.1:8080"),
    ("export ORCHD_ADDR=1.1.1.1:1", "127.0.0.1:8080"),
    ("OTHER='\nORCHD_ADDR=1.1.1.1:1\n'", "127.0.0.1:8080"),
    ("OTHER=\\\nORCHD_ADDR=1.1.1.1:1", "127.0.0.1:8080"),
    ("ORCHD_ADDR=1.1.1.1:1 # mine", None),
    ("ORCHD_ADDR='1.1.1.1:1", None),
    (";A='\nORCHD_ADDR=1.1.1.1:1", "1.1.1.1:1"),
    ("#A='\nORCHD_ADDR=1.1.1.1:1", "1.1.1.1:1"),
    ("='\nORCHD_ADDR=1.1.1.1:1", "1.1.1.1:1"),
]


@pytest.mark.parametrize(("text", "address"), FILES)
def test_file_is_parsed_as_systemd_does(tmp_path: Path, text: str, address: str | None) -> None:
    assert generate(tmp_path, text).get("queen-rbee") == address


FRAGMENTS = st.sampled_from(
    ["ORCHD_ADDR", "=", "1.1.1.1:1", "2.2.2.2:22", "'", '"', "\\", "\n", " ", "\t", "#", ";", "A", "$", "`", "é"]
)


def has_open_quote(text: str) -> bool:
    """Whether a quote is not closed. systemd accepts such a file; the generator takes its last value for invalid."""
    reader = Reader()
    for char in text:
        getattr(reader, reader.state)(char)
    return reader.state in ("single", "double", "double_escape")


@given(st.lists(FRAGMENTS, max_size=24).map("".join))
def test_random_files_are_parsed_as_systemd_does(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    value = parse(text).get("ORCHD_ADDR") or "127.0.0.1:8080"
    expected = value if value in ("1.1.1.1:1", "2.2.2.2:22", "127.0.0.1:8080") else None
    found = generate(tmp_path_factory.mktemp("etc"), text).get("queen-rbee")
    if has_open_quote(text):
        assert found in (None, BOUND_BY_DAEMON, expected)
    elif expected:
        assert found == expected
    else:
        assert found in (None, BOUND_BY_DAEMON) or found.strip("0123456789.:") == ""
