"""The gathering of a support bundle: every part is redacted before it is kept."""

from collections.abc import Callable
from functools import partial

import trio

from orchctl.bundle.content import Part, parts, text_of
from orchctl.bundle.machine import look_at_machine
from orchctl.bundle.redaction import redact
from orchctl.client import QueenClient
from orchctl.nurseries import unwrap_groups

SIDE_BY_SIDE = 4


async def gather(queen: QueenClient, progress: Callable[[str], None]) -> list[tuple[str, bytes]]:
    """Return the files of a bundle by name, without secrets."""
    progress("looking at this machine")
    machine = await look_at_machine(queen)
    wanted = {part.name: part for part in parts(queen, machine)}
    limiter = trio.CapacityLimiter(SIDE_BY_SIDE)
    texts: dict[str, bytes] = {}

    async def take(part: Part) -> None:
        async with limiter:
            progress(part.name)
            text = await text_of(part)
            redacted = await trio.to_thread.run_sync(partial(redact, text, machine.secrets))
            texts[part.name] = redacted.encode(errors="replace")

    with unwrap_groups():
        async with trio.open_nursery() as nursery:
            for part in wanted.values():
                nursery.start_soon(take, part)
    return [(name, texts[name]) for name in wanted]
