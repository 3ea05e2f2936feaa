"""SIGTERM and SIGHUP: the task is cancelled first, and then the process ends as by the signal."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchctl.waiting import heeding
from tests.unit.orchctl.running import LIMIT_S, command, environment
from tests.unit.orchctl.scripted_queen import CANCEL, END, HOLD, ScriptedQueen, serve, stream, submitting, tokens

ENDING = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
SCRIPT = submitting(stream(*tokens("first ")) + HOLD, stream(*tokens("last"), ("end", END), first_id=2))


@contextmanager
def streaming(*shell: str) -> Iterator[tuple[ScriptedQueen, "subprocess.Popen[bytes]"]]:
    """`orchctl submit` in the midst of an answer."""
    script = {line: [*answers] for line, answers in SCRIPT.items()}
    with (
        serve(script) as queen,
        subprocess.Popen(
            [*shell, *command("submit", "--url", queen.url, "x")],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            assert process.stdout
            assert process.stdout.read(6) == b"first "
            yield queen, process
        finally:
            process.kill()


@ENDING
def test_either_cancels_the_task_and_ends_the_process(number: signal.Signals) -> None:
    with streaming() as (queen, process):
        process.send_signal(number)
        assert process.communicate(timeout=LIMIT_S) == (b"\n", b"")
        assert process.returncode == -number
        assert queen.of(f"POST {CANCEL}")


@pytest.mark.parametrize("ignored", ["HUP", "HUP TERM"])
def test_what_is_ignored_stays_so(ignored: str) -> None:
    """As by nohup(1)."""
    with streaming("sh", "-c", f'trap "" {ignored}; exec "$@"', "sh") as (queen, process):
        for name in ignored.split():
            process.send_signal(signal.Signals[f"SIG{name}"])
        queen.release()
        out, _err = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, out) == (0, b"last\n")
        assert not queen.of(f"POST {CANCEL}")


async def test_behind_the_block_all_is_as_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(ValueError, match="as it is"):
        async with heeding():
            raise ValueError("as it is")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before
