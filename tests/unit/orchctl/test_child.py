"""Programs of the system: their output, and the limits on it."""

from pathlib import Path

import pytest
import trio

from orchctl.child import output_of
from tests.unit.orchctl.imitation_tools import Tools


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    monkeypatch.setenv("PATH", str(tmp_path))
    return Tools(tmp_path)


async def test_output_and_status_are_returned(tools: Tools) -> None:
    tools.add("tool", "out", "err", status=3)
    found = await output_of("tool", "a b", "$(c)")
    assert (found.status, found.out, found.err, found.problem) == (3, "out", "err", "")
    assert tools.calls("tool") == [["a b", "$(c)"]]


async def test_secrets_are_not_passed_on(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLORCH_API_TOKEN", "a-secret")
    tools.add("tool", more="env")
    assert "a-secret" not in (await output_of("tool")).out


async def test_long_output_is_cut_without_stopping_the_program(tools: Tools) -> None:
    tools.add("tool", more="head -c 300000 /dev/zero", status=5)
    found = await output_of("tool", max_bytes=10)
    assert (found.status, len(found.out)) == (5, 10)


async def test_program_that_hangs_is_killed(tools: Tools) -> None:
    pid = trio.Path(tools.directory, "pid")
    tools.add("tool", more=f"echo $$ >{pid}; exec sleep 600")
    with trio.fail_after(30):
        found = await output_of("tool", limit_s=0.5)
    assert found.status is None
    assert "did not end within 0.5 s" in found.problem
    if await pid.exists():  # on a busy machine, the program may not have begun
        assert not await trio.Path("/proc", (await pid.read_text()).strip()).exists()


async def test_missing_program_is_a_problem() -> None:
    assert (await output_of("no-such-tool")).problem == "no-such-tool is not installed"
