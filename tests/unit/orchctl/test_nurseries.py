"""Termination signals, background tasks, and exceptions without groups."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from orchctl.nurseries import background, cancel_on_termination
from tests.unit.orchctl.running import LIMIT_S, command, environment
from tests.unit.orchctl.scripted_queen import CANCEL, END, HOLD, ScriptedQueen, serve, stream, submitting, tokens

ENDING = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
SCRIPT = submitting(stream(*tokens("first ")) + HOLD, stream(*tokens("last"), ("end", END), first_id=2))


@contextmanager
def streaming(*shell: str) -> Iterator[tuple[ScriptedQueen, "subprocess.Popen[bytes]"]]:
    """Run `orchctl submit` until a part of the answer has arrived."""
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
def test_signal_cancels_task_and_ends_process(number: signal.Signals) -> None:
    with streaming() as (queen, process):
        process.send_signal(number)
        assert process.communicate(timeout=LIMIT_S) == (b"\n", b"")
        assert process.returncode == -number
        assert queen.requests_for(f"POST {CANCEL}")


@pytest.mark.parametrize("ignored", ["HUP", "HUP TERM"])
def test_ignored_signal_stays_ignored(ignored: str) -> None:
    """As under nohup(1)."""
    with streaming("sh", "-c", f'trap "" {ignored}; exec "$@"', "sh") as (queen, process):
        for name in ignored.split():
            process.send_signal(signal.Signals[f"SIG{name}"])
        queen.release()
        out, _err = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, out) == (0, b"last\n")
        assert not queen.requests_for(f"POST {CANCEL}")


async def test_signal_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(ValueError, match="as it is"):
        async with cancel_on_termination():
            raise ValueError("as it is")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


async def test_background_task_is_cancelled_with_block() -> None:
    ended = trio.Event()

    async def run(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            assert name == "x"
            ended.set()

    async with background(run, "x"):
        await trio.testing.wait_all_tasks_blocked()
    assert ended.is_set()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
async def test_exception_of_block_is_not_wrapped(kind: type[BaseException]) -> None:
    with pytest.raises(kind, match="as it is"):
        async with background(trio.sleep_forever):
            raise kind("as it is")
