"""A small daemon for tests. Its argument names its behaviour."""

import signal
import sys

import trio

from llama_orch.service.exit import ExitStatus, StartupError
from llama_orch.service.reload import Reloader
from llama_orch.service.run import Daemon, Service, main
from queen_rbee.settings import QueenSettings

BEHAVIOUR = sys.argv.pop(1)


async def run(settings: QueenSettings, service: Service) -> None:
    if BEHAVIOUR == "crashes":
        raise KeyError("the dispatcher's own fault")
    async with trio.open_nursery() as nursery:
        if BEHAVIOUR == "cannot-start":
            nursery.start_soon(port_in_use)
            return
        if BEHAVIOUR == "reloads":
            nursery.start_soon(Reloader(settings, service, lambda: "running").run)
        service.notifier.ready("running")
        print("ready", flush=True)
        await service.stop.wait()
        print("stopping", flush=True)
        if BEHAVIOUR == "drains-for-ever":
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()


async def port_in_use() -> None:
    """Fail like a listener."""
    raise StartupError("127.0.0.1:8080 is already in use", "Set another port", ExitStatus.UNAVAILABLE)


signal.signal(signal.SIGPIPE, signal.SIG_DFL)
sys.exit(main(Daemon("sample-daemon", "Shows how a daemon runs.", QueenSettings, run)))
