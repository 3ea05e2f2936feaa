"""Programs of the system that commands run: argument vectors without a shell, with limits on time and output."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from orchctl.nurseries import unwrap_groups

LIMIT_S = 5.0
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Output:
    """The output of a program. `status` is None if it did not run to its end, and `problem` says why."""

    status: int | None
    out: str = ""
    err: str = ""
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 0


async def output_of(*argv: str, limit_s: float = LIMIT_S, max_bytes: int = MAX_BYTES) -> Output:
    """Run a program without input and return its output, cut to `max_bytes` bytes each.

    It never raises for what the program does: a missing one, or one that takes more than `limit_s` seconds, is a
    `problem`. The program is killed when the limit passes or the caller is cancelled.
    """
    try:
        process = await open_child(argv)
    except FileNotFoundError:
        return Output(None, problem=f"{argv[0]} is not installed")
    except OSError as error:
        return Output(None, problem=f"cannot run {argv[0]}: {error.strerror}")
    out, err = bytearray(), bytearray()
    assert process.stdout
    assert process.stderr
    try:
        with trio.move_on_after(limit_s) as scope, unwrap_groups():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_read, process.stdout, out, max_bytes)
                nursery.start_soon(_read, process.stderr, err, max_bytes)
                await process.wait()
    finally:
        await end(process)
    text, words = out.decode(errors="replace"), err.decode(errors="replace")
    if scope.cancelled_caught:
        return Output(None, text, words, f"{argv[0]} did not end within {limit_s:g} s")
    return Output(process.returncode, text, words)


async def open_child(argv: Sequence[str]) -> trio.Process:
    """Start a program without input, with its output in pipes. The caller ends it. Raises OSError.

    It is in a session of its own: a Ctrl-C is for this process, which ends the program.
    """
    return await trio.lowlevel.open_process(
        [*argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Return the environment of this process with untranslated output, and without secrets."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "USER", "XDG_RUNTIME_DIR")}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **kept, "LC_ALL": "C.UTF-8"}


async def end(process: trio.Process) -> None:
    """Kill the program if it still runs, and collect it."""
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            process.kill()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()
        with trio.move_on_after(LIMIT_S):  # one that hangs in the kernel cannot be killed
            await process.wait()


async def _read(stream: trio.abc.ReceiveStream, into: bytearray, limit: int) -> None:
    """Read to the end, and keep the first `limit` bytes: a full pipe would stop the program."""
    while chunk := await stream.receive_some(65536):
        into += chunk[: limit - len(into)]
