"""The agreement with the queen about a suspension of this machine."""

import trio

ASK_S = 10.0


class Suspension:
    """From the question to the queen until the machine is awake again, or stays awake. Used again for the next one."""

    def __init__(self) -> None:
        self.asked = False
        """Whether heartbeats say that this machine wants to be suspended."""
        self.agreed = False
        """Whether the queen lets it: then no heartbeat is sent."""
        self._begins = trio.Event()
        self._answered = trio.Event()
        self._over = trio.Event()

    async def ask(self) -> str | None:
        """Have the queen asked; return why the machine must stay awake, None if it may be suspended.

        `end` must be called in either case. Takes at most ASK_S seconds.
        """
        self.asked = True
        self._begins.set()
        with trio.move_on_after(ASK_S):
            await self._answered.wait()
        if self.agreed:
            return None
        return "the queen needs it" if self._answered.is_set() else "the queen does not answer"

    def answer(self, *, agreed: bool) -> None:
        """Record the queen's answer; no effect if it comes after `end`."""
        if self.asked:
            self.agreed = agreed
            self._answered.set()

    def end(self) -> None:
        """Let heartbeats go on, with one at once."""
        self.asked = self.agreed = False
        self._over.set()
        self._begins, self._answered, self._over = trio.Event(), trio.Event(), trio.Event()

    async def begun(self) -> None:
        """Return when the queen is to be asked."""
        while not self.asked or self._answered.is_set():
            await (self._over if self.asked else self._begins).wait()

    async def over(self) -> None:
        """Return when the machine is awake again."""
        await self._over.wait()
