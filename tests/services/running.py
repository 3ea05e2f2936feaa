"""Run a server as a child process until the end of a block."""

import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import trio

START_S = 20.0
POLL_S = 0.02


@asynccontextmanager
async def running(command: Sequence[str | Path], port: int, log: Path, env: Mapping[str, str]) -> AsyncIterator[None]:
    """Run `command`, which serves on `port`. It logs to `log`. Raises AssertionError if it does not answer."""
    output = _create(log)
    with output:
        process = await trio.lowlevel.open_process(
            [str(word) for word in command], env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        with trio.move_on_after(START_S) as limit:
            while not await _answers(port):  # noqa: ASYNC110 -- another process has no event
                await trio.sleep(POLL_S)
        assert not limit.cancelled_caught, f"{command[0]} does not answer; see {log}"
        yield
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


def _create(log: Path) -> BinaryIO:
    return log.open("wb")


async def _answers(port: int) -> bool:
    try:
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
    except OSError:
        return False
    return True
