"""A variant of queen-rbee whose dispatcher hangs after SIGUSR2, while the rest of the daemon continues.

The test copies it to a machine and runs it there in place of the daemon. It is not part of the product.
"""

import logging
import signal
import sys
import threading
from unittest.mock import patch

import trio

from llama_orch.service.watchdog import Pulse
from queen_rbee import parts
from queen_rbee.__main__ import main
from queen_rbee.dispatch.dispatcher import Dispatcher

wedged = threading.Event()


class WedgingDispatcher(Dispatcher):
    """A dispatcher that stops after SIGUSR2."""

    async def _wait_for_change(self, pulse: Pulse) -> None:
        await super()._wait_for_change(pulse)
        if wedged.is_set():
            logging.getLogger(__name__).warning("dispatcher is wedged")
            await trio.sleep_forever()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, lambda _signal, _frame: wedged.set())
    with patch.object(parts, "Dispatcher", WedgingDispatcher):
        sys.exit(main())
