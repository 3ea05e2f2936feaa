"""orchctl top: a live view of nodes, pools, GPUs, the queue and the tasks that run."""

import argparse
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import trio

from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient
from orchctl.command import CliCommand, argument
from orchctl.errors import CommandError
from orchctl.nurseries import cancel_on_termination, unwrap_groups
from orchctl.output import terminal_columns, write
from orchctl.top.board import Board
from orchctl.top.feed import fill, follow
from orchctl.top.frame import Action, View, frame
from orchctl.top.keys import key_names, press
from orchctl.top.screen import Screen
from orchctl.top.spans import colours_wanted, plain_text

DRAW_S = 0.25
"""The queen sends changes at most this often."""
PLAIN_COLUMNS = 120
"""Width of --once in a pipe."""


async def top(options: argparse.Namespace, queen: QueenClient) -> None:
    """Show the view until q or Ctrl-C. Raises CommandError."""
    if options.once:
        await _print_once(queen)
        return
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb":
        hint = "Use orchctl top --once, which prints one view as text, or orchctl status --watch."
        raise CommandError("orchctl top needs a terminal that can be drawn on", hint, ExitStatus.USAGE)
    async with cancel_on_termination():
        await _Live(queen, Board(queen.url)).run()


async def _print_once(queen: QueenClient) -> None:
    board = Board(queen.url)
    await fill(queen, board)
    lines = frame(View(), board.situation(trio.current_time()), terminal_columns() or PLAIN_COLUMNS, None)
    write("".join(f"{plain_text(line)}\n" for line in lines))


class _Live:
    """The view on the terminal: one task reads the stream, one the keys, one the signals, and one draws."""

    def __init__(self, queen: QueenClient, board: Board) -> None:
        self._queen = queen
        self._board = board
        self._view = View()
        self._screen = Screen(colours=colours_wanted())
        self._quit = trio.CancelScope()

    async def run(self) -> None:
        """Raises CommandError. The terminal is given back in any case."""
        with self._screen, unwrap_groups():
            try:
                await self._tasks()
            except* KeyboardInterrupt:
                pass  # Ctrl-C is one of the ways to quit

    async def _tasks(self) -> None:
        numbers = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
        with trio.open_signal_receiver(*numbers) as signals, self._quit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow, self._queen, self._board)
                nursery.start_soon(self._read_keys, nursery)
                nursery.start_soon(self._follow_signals, signals)
                nursery.start_soon(self._keep_drawing)

    def _draw(self) -> None:
        columns, rows = self._screen.size
        self._screen.draw(frame(self._view, self._board.situation(trio.current_time()), columns, rows))

    async def _keep_drawing(self) -> None:
        while True:
            self._draw()
            await trio.sleep(DRAW_S)

    async def _read_keys(self, nursery: trio.Nursery) -> None:
        descriptor = sys.stdin.fileno()
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            data = b""
            with suppress(OSError):
                data = os.read(descriptor, 1024)
            for key in key_names(data):
                if key == "q" and not self._view.question:
                    self._quit.cancel()
                self._view, action = press(self._view, key, self._board.situation(trio.current_time()))
                if action:
                    nursery.start_soon(self._act, action)
            if not data:  # the terminal has gone
                self._quit.cancel()
                return
            self._draw()

    async def _act(self, action: Action) -> None:
        """Send the request and show how it went."""
        try:
            await self._queen.call("POST", action.path)
            said = f"{action.description}: accepted"
        except CommandError as error:
            said = f"{action.description}: {error.message}"
        self._view = replace(self._view, message=said)

    async def _follow_signals(self, signals: AsyncIterator[int]) -> None:
        """Draw anew after a change of the size; leave the terminal to the shell while the process is stopped."""
        async for number in signals:
            if number == signal.SIGTSTP:
                self._stop()
            self._screen.renew()
            self._draw()

    def _stop(self) -> None:
        """Stop the process as Ctrl-Z does; return when it continues."""
        self._screen.leave()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._screen.enter()


TOP = CliCommand(
    "top",
    "watch nodes, pools, GPUs, the queue and the running tasks live",
    top,
    [argument("--once", action="store_true", help="print one view as text, without a terminal")],
)
